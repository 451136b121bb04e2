#pragma once
// BalanceWatch: whether the two losses share the training as the method's author advises: velocity_loss_ratio, the
// velocity loss's share of the weighted total, between 0.2 and 0.8. Where the weighting makes that share constant
// (normalized, normalized_each) it says nothing, so the gradients' shares at v_pred are held to the same range: there
// grad_ratio within 0.25 to 4. The raw share too, without the weighting's w: where that alone is out of range the
// weighting makes up for it, which is worth saying once a run. Means over an interval of steps; steps with one loss, or
// with numbers that are not finite (skipped ones), do not count.

#include <cstdint>
#include <optional>
#include <string>

#include "launch/step_record.h"

namespace duoflow::launch {

class BalanceWatch {
 public:
  explicit BalanceWatch(std::int64_t every) : every_(every) {}  // steps of an interval; 0: off
  // One step. At the end of an interval that was out of balance: what is wrong and what to do, once.
  std::optional<std::string> add(LossBalance const& balance);

 private:
  struct Mean {
    double sum = 0;
    std::int64_t count = 0;
    void add(double value) { sum += value, ++count; }
    double value() const { return sum / static_cast<double>(count); }
  };
  struct Interval {
    std::int64_t steps = 0;
    Mean velocity, render;                           // the losses, unweighted
    Mean raw_share, velocity_share, gradient_share;  // of the velocity loss, and of its gradient's length at v_pred
  };
  std::optional<std::string> judge();
  std::string of_raw_losses() const;

  std::int64_t every_;
  Interval now_{};
  bool said_raw_ = false;
};

}  // namespace duoflow::launch
