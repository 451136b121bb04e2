#pragma once
// Learning rate as a function of the number of updates made (skipped ones do not count), on the device.

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

namespace duoflow::launch {

struct ScheduleOptions {
  double peak = 0;
  std::int64_t warmup = 0, total = 0;
  std::string type = "cosine";  // cosine, linear, constant
  std::int64_t ahead = 0;       // steps of the schedule beyond the updates: an imported run's skipped ones
};

// Linear warm-up from 0, then half a cosine (or a line) to 0 at `total`, or constant: the formulas of Hugging Face's
// get_{cosine,linear,constant}_schedule_with_warmup, which the reference uses. update_count: fp32 scalar. No host
// synchronisation.
at::Tensor learning_rate(ScheduleOptions const& options, at::Tensor const& update_count);

}  // namespace duoflow::launch
