#include "benchmarks/memory/activation_memory.h"

#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

std::string const kRecompute = "training.grad_checkpoint_every=1", kOneByOne = "training.render_view_chunk=1",
                  kTwoSamples = "training.batch_size_per_gpu=2";

// Bytes at the small configuration, the quickstart's second stage: one target view, eight samples a micro-step.
double peak(std::vector<std::string> const& overrides) {
  return static_cast<double>(
      peak_of_joint_step(load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", overrides)));
}
std::string views(int count) { return "training.num_target_views=" + std::to_string(count); }

TEST(ActivationMemoryTest, RecomputingBlocksTakesLessThanTwoFifthsOfKeepingAll) {
  double const all = peak({}), recomputed = peak({kRecompute});
  EXPECT_GT(all / recomputed, 2.5) << all << " and " << recomputed;
}

TEST(ActivationMemoryTest, RecomputingOnePartOfTheBlocksTakesLessThanKeepingIt) {
  double const all = peak({kTwoSamples});
  for (auto const* part : {"attention", "mlp"})
    EXPECT_LT(peak({kTwoSamples, kRecompute, std::string("training.grad_checkpoint_part=") + part}), 0.85 * all)
        << part;
}

// Beyond one view's only the pictures themselves grow, which the log shows: 64 x 64 pixels a view, in fp32.
TEST(ActivationMemoryTest, ViewsOneByOneTakeTheMemoryOfOneHoweverManyThereAre) {
  double const one = peak({kTwoSamples, views(1)});
  EXPECT_GT(peak({kTwoSamples, views(4)}), 1.8 * one);
  EXPECT_LT(peak({kTwoSamples, views(4), kOneByOne}), 1.03 * one);
  EXPECT_LT(peak({kTwoSamples, views(12), kOneByOne}), 1.10 * one);
}

}  // namespace
}  // namespace duoflow::launch
