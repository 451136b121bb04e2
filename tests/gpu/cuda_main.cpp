// The CUDA part of the tests. Fails without a CUDA device: a test that does not run must not look like one that passed.

#include <cstdio>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/cuda/Sleep.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "dist/nccl_backend.h"
#include "tests/gpu/cuda_world.h"

namespace duoflow {
namespace {

std::shared_ptr<dist::Transport>& transport() {
  static std::shared_ptr<dist::Transport> instance;
  return instance;
}

}  // namespace

dist::Communicator nccl_of_one() {
  if (!transport()) transport() = dist::make_nccl_transport(nullptr, kMaxSeconds);
  return dist::Communicator(transport());
}

double relative_distance(at::Tensor const& a, at::Tensor const& b) {
  auto const x = a.detach().cpu().to(at::kDouble), y = b.detach().cpu().to(at::kDouble);
  return ((x - y).abs().max() / y.abs().max()).item<double>();
}

void keep_busy(double seconds) { at::cuda::sleep(static_cast<std::int64_t>(seconds * 2.5e9)); }

NoHostSynchronisation::NoHostSynchronisation() {
  c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_ERROR);
}
NoHostSynchronisation::~NoHostSynchronisation() {
  c10::cuda::warning_state().set_sync_debug_mode(c10::cuda::SyncDebugMode::L_DISABLED);
}

}  // namespace duoflow

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (!at::hasCUDA() || at::getNumGPUs() == 0) {
    std::fprintf(stderr, "cuda_test: no CUDA device can be used; run it on a machine with a GPU and its driver\n");
    return 1;
  }
  duoflow::dist::bind_device(0);
  at::globalContext().setAllowTF32CuBLAS(false);  // fp32 here means fp32
  int const result = RUN_ALL_TESTS();
  if (duoflow::transport()) duoflow::transport()->close();
  return result;
}
