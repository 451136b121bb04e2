// The whole joint update on the device: the CPU's numbers, without the host ever waiting for the device.

#include <ATen/ATen.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <gtest/gtest.h>

#include "tests/gpu/cuda_world.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::launch {
namespace {

struct Case {
  std::string name;
  std::int64_t micro_steps = 1;
  std::string statistics = "current";
  int zero = 0;
  bool reproducible = false;
};

TinyShape shape(Case const& options, at::Device device) {
  TinyShape result;
  result.micro_steps = options.micro_steps;
  result.statistics = options.statistics;
  result.zero = options.zero;
  result.reproducible = options.reproducible;
  result.device = device;
  return result;
}

class CudaJointStep : public ::testing::TestWithParam<Case> {};

TEST_P(CudaJointStep, FiveUpdatesFollowTheCpu) {
  TinyRun cpu(dist::Communicator(), shape(GetParam(), at::kCPU));
  TinyRun cuda(nccl_of_one(), shape(GetParam(), at::kCUDA));
  for (int update = 0; update < 5; ++update) {
    EXPECT_FALSE(cpu.update(tiny_batch(4, update)));
    EXPECT_FALSE(cuda.update(tiny_batch(4, update, at::kCUDA)));
    EXPECT_LT(relative_distance(cuda.gradients(), cpu.gradients()), 1e-4) << "update " << update;
    EXPECT_LT(relative_distance(cuda.statistics(), cpu.statistics()), 1e-5) << "update " << update;
    EXPECT_LT(relative_distance(cuda.weights().velocity, cpu.weights().velocity), 1e-5) << "update " << update;
  }
  EXPECT_LT(relative_distance(cuda.buffer().parameters(), cpu.buffer().parameters()), 1e-4);
}

TEST_P(CudaJointStep, LaunchesWithoutWaitingForTheDevice) {
  TinyRun run(nccl_of_one(), shape(GetParam(), at::kCUDA));
  std::vector<model::JointBatch> batches;
  for (int update = 0; update < 5; ++update) batches.push_back(tiny_batch(4, update, at::kCUDA));
  run.launch_update(batches[0]);  // libraries make their workspaces
  run.launch_update(batches[1]);
  at::Tensor skipped;
  {
    NoHostSynchronisation const guard;
    EXPECT_THROW(skipped = at::full({}, batches[0].t[0].item<float>()), c10::Error) << "the guard sees one";
    for (std::size_t update = 2; update < 5; ++update) skipped = run.launch_update(batches[update]);
  }
  EXPECT_FALSE(skipped.item<bool>());
}

TEST_P(CudaJointStep, ANonFiniteSampleSkipsTheUpdateAndKeepsEveryBit) {
  TinyRun run(nccl_of_one(), shape(GetParam(), at::kCUDA));
  run.update(tiny_batch(4, 0, at::kCUDA));
  auto const before = run.buffer().parameters().clone();
  auto batch = tiny_batch(4, 1, at::kCUDA);
  batch.x1[2][0][0].fill_(std::nan(""));
  EXPECT_TRUE(run.update(batch));
  EXPECT_TRUE(at::equal(run.buffer().parameters(), before));
  EXPECT_EQ(run.optimizer().update_count().item<float>(), 1);
  EXPECT_FALSE(run.update(tiny_batch(4, 2, at::kCUDA)));
  EXPECT_FALSE(at::equal(run.buffer().parameters(), before));
}

TEST_P(CudaJointStep, MemoryIsFlat) {
  TinyRun run(nccl_of_one(), shape(GetParam(), at::kCUDA));
  auto const batch = tiny_batch(4, 0, at::kCUDA);
  auto const allocated = [] {
    auto const statistics = c10::cuda::CUDACachingAllocator::getDeviceStats(0);
    return statistics.allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)].current;
  };
  for (int update = 0; update < 5; ++update) run.update(batch);
  auto const early = allocated();
  for (int update = 0; update < 50; ++update) run.update(batch);
  EXPECT_EQ(allocated(), early);
}

INSTANTIATE_TEST_SUITE_P(Options, CudaJointStep,
                         ::testing::Values(Case{"one_micro_step"}, Case{"two_micro_steps", 2},
                                           Case{"lagged", 1, "lagged"}, Case{"lagged_two_micro_steps", 2, "lagged"},
                                           Case{"zero", 1, "current", 1}, Case{"reproducible", 2, "current", 0, true},
                                           Case{"reproducible_lagged_zero", 2, "lagged", 1, true}),
                         [](auto const& tested) { return tested.param.name; });

}  // namespace
}  // namespace duoflow::launch
