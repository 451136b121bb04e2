#pragma once
// CollapseGuard: a trainable reconstructor can make the velocity loss small by making all latents alike
// (reference/method.md 1.5 #3). Watches the standard deviation of x0, a number reduced over all ranks, so that all
// ranks come to the same end.

#include <string>

#include "launch/config.h"

namespace duoflow::launch {

class CollapseGuard {
 public:
  // first: the deviation that the run began with, where it goes on from a checkpoint; 0: the next one is. Watches only
  // where the config makes a collapse possible and training.collapse_guard is not 0.
  explicit CollapseGuard(Config const& config, double first = 0);

  // Of one step; 0 for constant latents, not finite in a step with bad losses: neither counts. Returns what to warn of,
  // once, or "". std::runtime_error instead, in every step, with training.collapse_action: stop.
  std::string watch(std::int64_t step, double latent_std);
  double first() const { return first_; }

 private:
  bool watches_ = false, stops_ = false, said_ = false;
  double share_ = 0, first_ = 0;
};

}  // namespace duoflow::launch
