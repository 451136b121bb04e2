#include <atomic>
#include <exception>
#include <stdexcept>

#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include "dist/device_graph.h"

namespace duoflow::dist {
namespace {

std::atomic<bool> capture_under_way{false};

struct UnderWay {
  UnderWay() {
    if (capture_under_way.exchange(true)) throw std::logic_error("a capture within a capture");
  }
  ~UnderWay() { capture_under_way = false; }
  UnderWay(UnderWay const&) = delete;
  UnderWay& operator=(UnderWay const&) = delete;
};

template <typename Call>
void without_throwing(Call const& call) noexcept {
  try {
    call();
  } catch (std::exception const&) {
  }
}

class CudaGraph : public DeviceGraph {
 public:
  void capture(std::function<void()> const& work) override {
    UnderWay const under_way;
    // The graph has a memory of its own: what earlier work has left in the allocator's cache would lie idle beside it.
    c10::cuda::device_synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();
    // Only this thread is held to what a capture allows. Others go on: the watchdogs ask about collectives that were
    // launched before, readers and writers use pinned memory. The autograd engine's threads launch into the capture
    // through the stream, which is where it is recorded.
    try {
      graph_.capture_begin(pool_, cudaStreamCaptureModeThreadLocal);
      work();
      graph_.capture_end();
    } catch (...) {
      without_throwing([&] { graph_.capture_end(); });  // where it is still under way; an error too, it is invalid
      give_memory_back();
      throw;
    }
  }
  void replay() override { graph_.replay(); }

 private:
  // capture_end() ends the capture in any case, but leaves the allocators recording when it throws: they would hold
  // back what other streams still use until the recording ends, which is never. Does nothing where they have ended it.
  void give_memory_back() noexcept {
    without_throwing([&] {
      c10::cuda::CUDACachingAllocator::endAllocateToPool(device_, pool_);
      c10::cuda::CUDACachingAllocator::releasePool(device_, pool_);
    });
    without_throwing([&] {
      at::getHostAllocator(at::kCUDA)->end_allocate_to_pool(pool_);
      at::getHostAllocator(at::kCUDA)->release_pool(pool_);
    });
  }

  c10::DeviceIndex device_ = c10::cuda::current_device();
  c10::MempoolId_t pool_ = at::cuda::graph_pool_handle();
  at::cuda::CUDAGraph graph_;
};

}  // namespace

std::unique_ptr<DeviceGraph> make_cuda_graph() { return std::make_unique<CudaGraph>(); }

bool is_capturing() { return capture_under_way; }

}  // namespace duoflow::dist
