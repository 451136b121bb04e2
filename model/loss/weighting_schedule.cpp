// schedule: velocity first, rendering later (the method's strategy 3). step: w = (2, 0.5) before warmup_steps and
// (0.5, 2) from there on; linear: from the one to the other over warmup_steps; the four numbers are options. For runs
// that are to learn the flow before the renderer's say grows, without a hard switch; a weight of 0 skips its loss.

#include <cmath>
#include <stdexcept>

#include <fmt/format.h>

#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

class ScheduleWeighting : public StepWeighting {
 public:
  explicit ScheduleWeighting(WeightingOptions const& options)
      : options_(options), linear_(options.schedule_form == "linear") {}

  std::pair<double, double> weights_at(std::int64_t step) const override {
    double const done = progress(step);
    return {between(options_.velocity_start, options_.velocity_end, done),
            between(options_.render_start, options_.render_end, done)};
  }
  bool depends_on_step() const override { return options_.warmup_steps > 0; }

 private:
  // 0 at the first step, 1 from warmup_steps on.
  double progress(std::int64_t step) const {
    if (step >= options_.warmup_steps) return 1;
    return linear_ ? static_cast<double>(step) / static_cast<double>(options_.warmup_steps) : 0;
  }
  static double between(double start, double end, double done) { return (1 - done) * start + done * end; }

  WeightingOptions options_;
  bool linear_;
};

void check(WeightingOptions const& options) {
  if (options.schedule_form != "step" && options.schedule_form != "linear") {
    throw std::invalid_argument(
        fmt::format("unknown schedule form '{}', use one of: step, linear", options.schedule_form));
  }
  if (options.warmup_steps < 0) {
    throw std::invalid_argument(
        fmt::format("the weighting schedule has {} warm-up steps, use 0 or more", options.warmup_steps));
  }
  for (double const weight : {options.velocity_start, options.velocity_end, options.render_start, options.render_end}) {
    if (!std::isfinite(weight) || weight < 0) {
      throw std::invalid_argument(fmt::format("the weighting schedule has the weight {}, use numbers >= 0", weight));
    }
  }
  if (options.velocity_start + options.velocity_end + options.render_start + options.render_end == 0)
    throw std::invalid_argument("all four weights of the weighting schedule are 0 (nothing is left to train), give one a value");
}

}  // namespace

std::unique_ptr<Weighting> make_weighting_schedule(WeightingOptions const& options, at::Device) {
  check(options);
  return std::make_unique<ScheduleWeighting>(options);
}

}  // namespace duoflow::model
