#include "dist/cuda/update.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

namespace duoflow::dist {

bool has_update_kernel(c10::Device device) { return device.is_cuda(); }

void run_update_kernel(kernels::AdamWRun const& run, kernels::AdamWScalars const& scalars, kernels::AdamWRule const& rule,
                       c10::Device device) {
  c10::cuda::CUDAGuard const guard(device);
  kernels::adamw_run(run, scalars, rule, c10::cuda::getCurrentCUDAStream(device.index()).stream());
}

}  // namespace duoflow::dist
