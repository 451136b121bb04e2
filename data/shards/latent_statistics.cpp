#include "data/shards/latent_statistics.h"

#include <cmath>
#include <cstddef>

namespace duoflow::data {

LatentStatistics pooled(std::vector<WeightedStatistics> const& parts) {
  LatentStatistics result;
  if (parts.empty()) return result;
  double weights = 0;
  for (auto const& part : parts) weights += part.weight;
  for (std::size_t i = 0; i < parts.front().statistics.mean.size(); ++i) {
    double centre = 0, variance = 0;  // around the common mean for accuracy
    for (auto const& [weight, part] : parts) centre += weight / weights * static_cast<double>(part.mean[i]);
    for (auto const& [weight, part] : parts) {
      double const s = static_cast<double>(part.deviation[i]), d = static_cast<double>(part.mean[i]) - centre;
      variance += weight / weights * (s * s + d * d);
    }
    result.mean.push_back(static_cast<float>(centre));
    result.deviation.push_back(static_cast<float>(std::sqrt(variance)));
  }
  return result;
}

}  // namespace duoflow::data
