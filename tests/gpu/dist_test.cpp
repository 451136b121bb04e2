// NCCL and the optimizer on the device.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/flat_buffer.h"
#include "dist/sharded_adamw.h"
#include "dist/statistics.h"
#include "tests/gpu/cuda_world.h"

namespace duoflow::dist {
namespace {

at::TensorOptions on_cuda(at::ScalarType type) { return at::TensorOptions(type).device(at::kCUDA); }

class NcclOfOne : public ::testing::TestWithParam<at::ScalarType> {};

TEST_P(NcclOfOne, EveryCollectiveLeavesTheNumbersAsTheyAre) {
  auto const group = nccl_of_one();
  auto const numbers = at::arange(100, on_cuda(GetParam()));
  auto reduced = numbers.clone(), broadcasted = numbers.clone();
  auto scattered = at::zeros_like(numbers), gathered = at::zeros_like(numbers), exchanged = at::zeros_like(numbers);
  all_reduce(group, reduced).wait();
  broadcast(group, broadcasted).wait();
  reduce_scatter(group, scattered, numbers).wait();
  all_gather(group, gathered, numbers).wait();
  all_to_all(group, exchanged, numbers).wait();
  barrier(group);
  for (auto const& result : {reduced, broadcasted, scattered, gathered, exchanged})
    EXPECT_TRUE(at::equal(result, numbers));
}

INSTANTIATE_TEST_SUITE_P(Types, NcclOfOne,
                         ::testing::Values(at::kFloat, at::kDouble, at::kBFloat16, at::kLong, at::kByte));

TEST(CudaStatistics, ArriveAndLeaveTheGivenOnesAlone) {
  StatisticsExchange exchange(nccl_of_one(), 5, at::kCUDA);
  auto const local = at::arange(5, on_cuda(at::kDouble));
  for (int round = 0; round < 3; ++round) {
    exchange.start(local + round);
    EXPECT_TRUE(at::equal(exchange.await(), local + round));
  }
}

struct Optimized {
  explicit Optimized(at::Device device)
      : weight((at::arange(1000, at::kFloat) * 0.37).sin().to(device).requires_grad_()),
        buffer({{"weight", weight, 0}}),
        optimizer(buffer, {0.9, 0.95, 1e-8, {0.1}}) {}
  void step(double phase, bool bad) {
    auto const device = buffer.gradients().device();
    buffer.gradients().copy_((at::arange(buffer.size(), at::kFloat) * 0.11 + phase).cos().to(device));
    if (bad) buffer.gradients()[7].fill_(std::nan(""));
    optimizer.step(buffer.gradients(), at::full({}, 1e-2, at::TensorOptions(at::kFloat).device(device)),
                   at::full({}, bad ? 1.0 : 0.0, at::TensorOptions(at::kFloat).device(device)));
  }
  at::Tensor weight;
  FlatBuffer buffer;
  ShardedAdamW optimizer;
};

TEST(CudaAdamW, FollowsTheCpuAndKeepsItsBitsOnASkippedUpdate) {
  Optimized cpu(at::kCPU), cuda(at::kCUDA);
  for (int update = 0; update < 5; ++update) {
    cpu.step(update, false);
    cuda.step(update, false);
  }
  EXPECT_LT(relative_distance(cuda.weight, cpu.weight), 1e-6);
  EXPECT_LT(relative_distance(cuda.optimizer.exp_avg_sq(), cpu.optimizer.exp_avg_sq()), 1e-6);
  auto const before = cuda.weight.detach().clone(), moments = cuda.optimizer.exp_avg().clone();
  cuda.step(9, true);
  EXPECT_TRUE(at::equal(cuda.weight.detach(), before));
  EXPECT_TRUE(at::equal(cuda.optimizer.exp_avg(), moments));
  EXPECT_EQ(cuda.optimizer.update_count().item<float>(), 5);
}

}  // namespace
}  // namespace duoflow::dist
