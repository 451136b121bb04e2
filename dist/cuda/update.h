#pragma once
// The AdamW kernel on the current stream of a device, where the program has it.

#include <c10/core/Device.h>

#include "dist/cuda/adamw.h"

namespace duoflow::dist {

bool has_update_kernel(c10::Device device);
// adamw_run of dist/cuda/adamw.h; std::logic_error where the program has no kernels.
void run_update_kernel(kernels::AdamWRun const& run, kernels::AdamWScalars const& scalars, kernels::AdamWRule const& rule,
                       c10::Device device);

}  // namespace duoflow::dist
