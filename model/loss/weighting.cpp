#include "model/loss/weighting.h"

#include <array>
#include <stdexcept>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "model/loss/smoothed_weight.h"
#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

struct TableRow {
  char const* name;
  bool clamps, smooths;  // acts on clamp_*; on ema
  std::unique_ptr<Weighting> (*make)(WeightingOptions const& options, at::Device device);
};
constexpr std::array kStrategies{
    TableRow{"fixed", false, false, make_weighting_fixed},
    TableRow{"normalized", true, true, make_weighting_normalized},
    TableRow{"normalized_each", true, true, make_weighting_normalized_each},
    TableRow{"schedule", false, false, make_weighting_schedule},
    TableRow{"two_stage", false, false, make_weighting_two_stage},
    TableRow{"alternating", false, false, make_weighting_alternating},
    TableRow{"separate_graphs", false, false, make_weighting_separate_graphs},
    TableRow{"uncertainty", true, false, make_weighting_uncertainty},
    TableRow{"gradient_balance", true, true, make_weighting_gradient_balance},
    TableRow{"pcgrad", false, false, make_weighting_pcgrad},
};

void check_smoothing(TableRow const& row, WeightingOptions const& options) {
  bool const clamps = options.clamp_min != 0 || options.clamp_max != 0, smooths = options.ema != 0;
  if (!row.clamps && (clamps || smooths)) {
    throw std::invalid_argument(fmt::format(
        "weighting '{}' has no clamp and no EMA (its weights do not follow the losses) but clamp is [{}, {}] and ema "
        "{}, leave them at 0 or use 'normalized'",
        row.name, options.clamp_min, options.clamp_max, options.ema));
  }
  if (!row.smooths && smooths) {
    throw std::invalid_argument(
        fmt::format("weighting '{}' has no EMA (its weights are learned, and slowly) but ema is {}, leave it at 0 and "
                    "lower uncertainty_lr",
                    row.name, options.ema));
  }
}

}  // namespace

std::vector<std::string> weighting_names() {
  std::vector<std::string> names;
  for (TableRow const& row : kStrategies) names.emplace_back(row.name);
  return names;
}

std::unique_ptr<Weighting> make_weighting(WeightingOptions const& options, at::Device device) {
  for (TableRow const& row : kStrategies) {
    if (options.name != row.name) continue;
    check_smoothing(row, options);
    if (options.exposed && options.name != "gradient_balance")
      throw std::invalid_argument(fmt::format(
          "weighting '{}' has no exposed statistics (it asks for no norms of gradients), use current", row.name));
    auto weighting = row.make(options, device);
    bool const waits = weighting->needs_statistics() && !weighting->standing_weights();
    if (options.lagged && waits) return make_weighting_lagged(std::move(weighting), first_weight(options), device);
    return weighting;
  }
  throw std::invalid_argument(
      fmt::format("unknown weighting '{}', use one of: {}", options.name, fmt::join(weighting_names(), ", ")));
}

LossWeights StepWeighting::weights(at::Tensor const&, at::Tensor const&, at::Tensor const&) {
  throw std::logic_error("weights() of a weighting that depends on the step alone, call weights_at()");
}

std::pair<double, double> StatisticsWeighting::weights_at(std::int64_t) const {
  throw std::logic_error("weights_at() of a weighting that follows the losses, call weights()");
}

}  // namespace duoflow::model
