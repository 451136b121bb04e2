#include <stdexcept>

#include "dist/cuda/update.h"

namespace duoflow::dist {

bool has_update_kernel(c10::Device) { return false; }

void run_update_kernel(kernels::AdamWRun const&, kernels::AdamWScalars const&, kernels::AdamWRule const&, c10::Device) {
  throw std::logic_error("this program has no CUDA kernels: ask has_update_kernel() first");
}

}  // namespace duoflow::dist
