// alternating: with p = step / alternating_period rounded down, w = (1, 0) for even p and (0, 1) for odd p (the
// method's alternating training). Half of the steps render nothing. For losses whose gradients conflict so much that
// their sum serves neither, at the price that the method's document names: the two pull in turns and may oscillate.
// AdamW's moments are one for both, so a period far longer than 1 / (1 - beta1) makes phases of it.

#include <stdexcept>

#include <fmt/format.h>

#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

class AlternatingWeighting : public StepWeighting {
 public:
  explicit AlternatingWeighting(std::int64_t period) : period_(period) {}
  bool needs_both_losses() const override { return true; }
  std::pair<double, double> weights_at(std::int64_t step) const override {
    bool const renders = step / period_ % 2 == 1;
    return {renders ? 0 : 1, renders ? 1 : 0};
  }
  bool depends_on_step() const override { return true; }

 private:
  std::int64_t period_;
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_alternating(WeightingOptions const& options, at::Device) {
  if (options.alternating_period < 1) {
    throw std::invalid_argument(
        fmt::format("alternating has a period of {} steps, use 1 or more", options.alternating_period));
  }
  return std::make_unique<AlternatingWeighting>(options.alternating_period);
}

}  // namespace duoflow::model
