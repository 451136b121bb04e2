#include <stdexcept>

#include "dist/nccl_backend.h"

namespace duoflow::dist {

void bind_device(int) {}

std::shared_ptr<Transport> make_nccl_transport(Session*, double, std::shared_ptr<Watchdog>) {
  throw std::runtime_error(
      "CUDA was asked for, but this binary was built without it (DUOFLOW_CUDA=OFF): build with the preset gpu, or run "
      "on the cpu");
}

std::string cuda_device_name() { return ""; }
std::string nccl_version() { return "none"; }

}  // namespace duoflow::dist
