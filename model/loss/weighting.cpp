#include "model/loss/weighting.h"

#include <array>
#include <stdexcept>

#include <fmt/format.h>

#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

struct TableRow {
  char const* name;
  bool adaptive;  // acts on clamp_* and ema
  std::unique_ptr<Weighting> (*make)(WeightingOptions const& options, at::Device device);
};
constexpr std::array kStrategies{
    TableRow{"fixed", false, make_weighting_fixed},
    TableRow{"normalized", true, make_weighting_normalized},
    TableRow{"schedule", false, make_weighting_schedule},
};

}  // namespace

std::unique_ptr<Weighting> make_weighting(WeightingOptions const& options, at::Device device) {
  std::string names;
  for (TableRow const& row : kStrategies) {
    if (options.name != row.name) {
      names += (names.empty() ? "" : ", ") + std::string(row.name);
      continue;
    }
    bool const smooths = options.clamp_min != 0 || options.clamp_max != 0 || options.ema != 0;
    if (smooths && !row.adaptive) {
      throw std::invalid_argument(
          fmt::format("weighting '{}' has no clamp and no EMA (its weights do not follow the losses) but clamp is [{}, "
                      "{}] and ema {}, "
                      "leave them at 0 or use 'normalized'",
                      options.name, options.clamp_min, options.clamp_max, options.ema));
    }
    auto weighting = row.make(options, device);
    if (options.lagged && weighting->needs_statistics()) return make_weighting_lagged(std::move(weighting), device);
    return weighting;
  }
  throw std::invalid_argument(fmt::format("unknown weighting '{}', use one of: {}", options.name, names));
}

LossWeights StepWeighting::weights(at::Tensor const&, at::Tensor const&, at::Tensor const&) {
  throw std::logic_error("weights() of a weighting that depends on the step alone, call weights_at()");
}

}  // namespace duoflow::model
