#pragma once
// Mean and standard deviation of latents, put together from those of parts.

#include <vector>

namespace duoflow::data {

struct LatentStatistics {
  std::vector<float> mean, deviation;  // per channel, or both empty
};

struct WeightedStatistics {
  double weight = 0;  // > 0: rows of a shard, or the share that a run draws from a folder
  LatentStatistics statistics;
};

// Of the parts as one distribution, drawn from by weight: mean m = sum w_i m_i / W, variance
// sum w_i (s_i^2 + (m_i - m)^2) / W. All parts have as many channels; of no parts: empty.
LatentStatistics pooled(std::vector<WeightedStatistics> const& parts);

}  // namespace duoflow::data
