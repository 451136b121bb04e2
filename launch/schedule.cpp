#include "launch/schedule.h"

#include <algorithm>
#include <numbers>

#include <ATen/ATen.h>

namespace duoflow::launch {

at::Tensor learning_rate(ScheduleOptions const& options, at::Tensor const& update_count) {
  auto const count = update_count.to(at::kDouble) + static_cast<double>(options.ahead);
  auto const warm = static_cast<double>(std::max<std::int64_t>(1, options.warmup));
  auto const rising = count / warm;
  at::Tensor after;
  if (options.type == "constant") {
    after = at::ones_like(count);
  } else {
    auto const span = static_cast<double>(std::max<std::int64_t>(1, options.total - options.warmup));
    auto const progress = (count - static_cast<double>(options.warmup)) / span;
    after = options.type == "cosine" ? (0.5 * (1 + at::cos(std::numbers::pi * progress))).clamp_min(0)
                                     : (1 - progress).clamp_min(0);
  }
  return (options.peak * at::where(count < static_cast<double>(options.warmup), rising, after)).to(at::kFloat);
}

}  // namespace duoflow::launch
