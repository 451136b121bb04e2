// The order between streams where the current one is busy: results that depend on it, and a host that goes on.

#include <chrono>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/side_stream.h"
#include "dist/statistics.h"
#include "tests/gpu/cuda_world.h"

namespace duoflow::dist {
namespace {

at::Device current_device() { return at::empty({0}, at::TensorOptions().device(at::kCUDA)).device(); }

c10::Stream current_stream() {
  auto const device = current_device();
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

// Whether everything that was launched on the current stream until now is done; the host does not wait.
bool is_done() {
  c10::Event now(at::kCUDA);
  now.record(current_stream());
  return now.query();
}

TEST(CudaSideStream, SeesWhatTheCurrentStreamDidAndIsJoinedByIt) {
  SideStream side(current_device());
  auto const x = at::zeros({1 << 20}, at::TensorOptions(at::kFloat).device(at::kCUDA));
  auto y = at::zeros_like(x), z = at::zeros_like(x);
  auto const outside = current_stream();
  {
    NoHostSynchronisation const guard;
    keep_busy(0.2);
    x.fill_(3);
    {
      auto const beside = side.scope();
      EXPECT_NE(current_stream(), outside);
      keep_busy(0.2);
      y.copy_(x);
    }
    EXPECT_EQ(current_stream(), outside);
    side.join();
    z.copy_(y);
    EXPECT_FALSE(is_done()) << "the host has waited";
  }
  EXPECT_EQ(z.min().item<float>(), 3);
}

TEST(CudaSideStream, WorkBesideDoesNotKeepTheCurrentStream) {
  SideStream side(current_device());
  auto x = at::zeros({16}, at::TensorOptions(at::kFloat).device(at::kCUDA));
  x.add_(1);
  static_cast<void>(x.sum().item<float>());  // kernels are loaded, and this waits for everything so far
  {
    auto const beside = side.scope();
    keep_busy(1.0);
  }
  auto const begin = std::chrono::steady_clock::now();
  x.add_(1);
  EXPECT_EQ(x.sum().item<float>(), 32);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(300));
  side.join();
  EXPECT_FALSE(is_done());
  EXPECT_EQ(x.sum().item<float>(), 32);
}

TEST(CudaSideStream, UnorderedWorkOvertakesTheCurrentStream) {
  SideStream side(current_device());
  auto const pinned = at::ones({16}, at::TensorOptions(at::kFloat).pinned_memory(true));
  auto x = pinned.to(at::kCUDA).add(0);
  static_cast<void>(x.sum().item<float>());  // kernels are loaded, and this waits for everything so far
  keep_busy(1.0);
  auto const begin = std::chrono::steady_clock::now();
  at::Tensor copy;
  {
    auto const beside = side.unordered_scope();
    copy = pinned.to(at::kCUDA, /*non_blocking=*/true);
    EXPECT_EQ(copy.add(0).sum().item<float>(), 16);  // waits for the side stream alone
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(500));
  EXPECT_FALSE(is_done());
  side.join();
  side.keep_for_current(copy);
  x.add_(copy);
  EXPECT_EQ(x.sum().item<float>(), 32);
}

TEST(CudaStatistics, AreOrderedAfterWhatMadeThemAndBeforeWhatReadsThemWithoutTheHost) {
  StatisticsExchange exchange(nccl_of_one(), 3, current_device());
  auto local = at::zeros({3}, at::TensorOptions(at::kDouble).device(at::kCUDA));
  at::Tensor twice;
  {
    NoHostSynchronisation const guard;
    keep_busy(0.2);
    local.fill_(4);
    exchange.start(local);
    local.fill_(5);  // an own copy travels
    twice = exchange.await() * 2;
    EXPECT_FALSE(is_done()) << "the host has waited";
  }
  EXPECT_EQ(twice.min().item<double>(), 8);
  EXPECT_EQ(twice.max().item<double>(), 8);
}

}  // namespace
}  // namespace duoflow::dist
