#include "benchmarks/gpu_kernels/timing.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/Sleep.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

namespace duoflow::benchmark {
namespace {

constexpr int kWarmUp = 3;
constexpr double kMostCyclesPerSecond = 2.5e9;  // of any GPU's clock: it sleeps at least as long as asked

}  // namespace

Times time_of(std::function<void()> const& body, int calls, int repeats) {
  auto const now = [] { return std::chrono::steady_clock::now(); };
  for (int i = 0; i < kWarmUp; ++i) body();
  c10::cuda::device_synchronize();
  auto const begin = now();
  for (int i = 0; i < calls; ++i) body();
  double const queueing_s = std::chrono::duration<double>(now() - begin).count();  // at most: the queue may have been full
  c10::cuda::device_synchronize();
  std::vector<double> all;
  for (int r = 0; r < repeats; ++r) {
    at::cuda::CUDAEvent start(cudaEventDefault), end(cudaEventDefault);
    at::cuda::sleep(static_cast<std::int64_t>(std::min(1.5 * queueing_s, 0.5) * kMostCyclesPerSecond));
    start.record();
    for (int i = 0; i < calls; ++i) body();
    end.record();
    end.synchronize();
    all.push_back(static_cast<double>(start.elapsed_time(end)) / calls);
  }
  std::sort(all.begin(), all.end());
  return {all[all.size() / 2], all.front(), all.back()};
}

double copy_bandwidth(std::int64_t bytes) {
  at::Tensor const from = at::zeros({bytes}, at::dtype(at::kByte).device(at::kCUDA)), to = at::empty_like(from);
  auto const time = time_of(
      [&] {
        C10_CUDA_CHECK(cudaMemcpyAsync(to.mutable_data_ptr(), from.const_data_ptr(), static_cast<std::size_t>(bytes),
                                       cudaMemcpyDeviceToDevice, c10::cuda::getCurrentCUDAStream()));
      },
      10);
  return 2 * static_cast<double>(bytes) / (time.median_ms * 1e-3);
}

}  // namespace duoflow::benchmark
