// The captured step on the device: what tests/launch/captured_update_test.cpp shows with a stand-in on the CPU.

#include <memory>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/device_graph.h"
#include "dist/side_stream.h"
#include "tests/gpu/cuda_world.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::launch {
namespace {

constexpr int kCapturedUpdates = 10;

at::Device this_device() { return at::empty({0}, at::TensorOptions().device(at::kCUDA)).device(); }

struct CapturedCase {
  std::string name, weighting = "normalized", statistics = "current";
  std::int64_t micro_steps = 1;
  int zero = 0;
  bool reproducible = false, bf16 = false, recompute = false;
};

class CudaCapturedStep : public ::testing::TestWithParam<CapturedCase> {
 protected:
  TinyShape shape() const {
    auto const& tested = GetParam();
    TinyShape result;
    result.device = at::kCUDA;
    result.weighting = tested.weighting, result.statistics = tested.statistics;
    result.micro_steps = tested.micro_steps, result.zero = tested.zero, result.reproducible = tested.reproducible;
    result.bf16 = tested.bf16, result.recompute = tested.recompute;
    result.ema = 0.9, result.warmup = 4;
    return result;
  }
  void expect_captured(TinyRun const& run) {
    ASSERT_EQ(run.said().size(), 1U);
    EXPECT_NE(run.said().front().find("is captured"), std::string::npos) << run.said().front();
  }

 private:
  dist::SideStream stream_{this_device(), dist::StreamPriority::ordinary};
  std::optional<c10::StreamGuard> const on_it_ = stream_.unordered_scope();
};

TEST_P(CudaCapturedStep, TenUpdatesFollowTheEagerOnes) {
  TinyRun eager(nccl_of_one(), shape()), captured(nccl_of_one(), shape());
  captured.capture_with(dist::make_cuda_graph);
  for (int update = 0; update < kCapturedUpdates; ++update) {
    auto const batch = tiny_batch(4, update, at::kCUDA);
    EXPECT_FALSE(eager.update(batch));
    EXPECT_FALSE(captured.update(batch));
    EXPECT_LT(relative_distance(captured.statistics(), eager.statistics()), 1e-5) << "update " << update;
    EXPECT_LT(relative_distance(captured.weights().velocity, eager.weights().velocity), 1e-5) << "update " << update;
    EXPECT_LT(relative_distance(captured.norm(), eager.norm()), 1e-4) << "update " << update;
    EXPECT_EQ(captured.rate().item<float>(), eager.rate().item<float>()) << "update " << update;
    if (update % 4 == 3) eager.settle(), captured.settle();  // launched one by one, between replays
  }
  EXPECT_LT(relative_distance(captured.buffer().parameters(), eager.buffer().parameters()), 1e-4);
  EXPECT_LT(relative_distance(captured.optimizer().average(), eager.optimizer().average()), 1e-4);
  expect_captured(captured);
}

TEST_P(CudaCapturedStep, AReplayDoesNotWaitForTheDevice) {
  TinyRun run(nccl_of_one(), shape());
  run.capture_with(dist::make_cuda_graph);
  std::vector<model::JointBatch> batches;
  for (int update = 0; update < kCapturedUpdates; ++update) batches.push_back(tiny_batch(4, update, at::kCUDA));
  for (std::size_t update = 0; update < 5; ++update) run.launch_update(batches[update]);
  at::Tensor skipped;
  {
    NoHostSynchronisation const guard;
    for (std::size_t update = 5; update < batches.size(); ++update) skipped = run.launch_update(batches[update]);
  }
  EXPECT_FALSE(skipped.item<bool>());
  expect_captured(run);
}

TEST_P(CudaCapturedStep, ANonFiniteSampleSkipsAReplayedUpdateAndKeepsEveryBit) {
  TinyRun run(nccl_of_one(), shape());
  run.capture_with(dist::make_cuda_graph);
  for (int update = 0; update < 6; ++update) EXPECT_FALSE(run.update(tiny_batch(4, update, at::kCUDA)));
  auto const before = run.buffer().parameters().clone();
  auto batch = tiny_batch(4, 6, at::kCUDA);
  batch.x1[2][0][0].fill_(std::nan(""));
  EXPECT_TRUE(run.update(batch));
  EXPECT_TRUE(at::equal(run.buffer().parameters(), before));
  EXPECT_FALSE(run.update(tiny_batch(4, 7, at::kCUDA)));
  EXPECT_FALSE(at::equal(run.buffer().parameters(), before));
}

// A capture that fails, here by asking the device for a number, ends with the device fit for eager work.
class FailingCapture : public dist::DeviceGraph {
 public:
  void capture(std::function<void()> const& work) override {
    inner_->capture([&] {
      work();
      static_cast<void>(at::ones({}, at::TensorOptions().device(at::kCUDA)).item<float>());
    });
  }
  void replay() override { inner_->replay(); }

 private:
  std::unique_ptr<dist::DeviceGraph> inner_ = dist::make_cuda_graph();
};

TEST_P(CudaCapturedStep, AfterACaptureThatFailedTheRunGoesOn) {
  TinyRun eager(nccl_of_one(), shape()), other(nccl_of_one(), shape());
  other.capture_with([] { return std::make_unique<FailingCapture>(); });
  for (int update = 0; update < 6; ++update) {
    auto const batch = tiny_batch(4, update, at::kCUDA);
    EXPECT_FALSE(eager.update(batch));
    EXPECT_FALSE(other.update(batch));
    EXPECT_LT(relative_distance(other.statistics(), eager.statistics()), 1e-5) << "update " << update;
  }
  ASSERT_EQ(other.said().size(), 1U);
  EXPECT_NE(other.said().front().find("could not be captured"), std::string::npos) << other.said().front();
}

INSTANTIATE_TEST_SUITE_P(
    Options, CudaCapturedStep,
    ::testing::Values(CapturedCase{"one_micro_step"}, CapturedCase{"two_micro_steps", "normalized", "current", 2},
                      CapturedCase{"lagged", "normalized", "lagged", 2}, CapturedCase{"balance", "gradient_balance"},
                      CapturedCase{"zero", "normalized", "current", 1, 1},
                      CapturedCase{"reproducible", "normalized", "current", 2, 0, true},
                      CapturedCase{"bf16_gradients", "normalized", "current", 1, 0, false, true},
                      CapturedCase{"recomputed", "normalized", "current", 1, 0, false, false, true}),
    [](auto const& tested) { return tested.param.name; });

}  // namespace
}  // namespace duoflow::launch
