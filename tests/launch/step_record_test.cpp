#include "launch/step_record.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

double const kNan = std::numeric_limits<double>::quiet_NaN();

// Four samples on three ranks; every number is another one.
StepNumbers numbers() {
  StepNumbers result;
  result.step = 7;
  result.samples = 28;
  result.statistics.assign(static_cast<std::size_t>(statistic_slots(3)), 0);
  auto& s = result.statistics;
  s[model::kVelocityLoss] = 8, s[model::kRenderLoss] = 2, s[model::kMse] = 1, s[model::kPsnr] = 100,
  s[model::kSamples] = 4;
  s[model::kGradVelocitySq] = 1e6, s[model::kGradRenderSq] = 1e6, s[model::kGradDot] = 1e6;  // of the step before
  result.own = {0.25, 1.5, 3.5, 1e-3, 0};
  result.comm_wait_ms = 0.75;
  return result;
}

std::vector<double> next_statistics() {
  std::vector<double> s(static_cast<std::size_t>(statistic_slots(3)), 0);
  s[model::kSamples] = 4;
  s[model::kGradVelocitySq] = 16, s[model::kGradRenderSq] = 9, s[model::kGradDot] = -6;
  double const step_ms[] = {20, 50, 40}, wait_ms[] = {1, 2, 3};
  for (std::size_t rank = 0; rank < 3; ++rank) {
    s[kFirstPerRank + kPerRank * rank + kStepMs] = step_ms[rank];
    s[kFirstPerRank + kPerRank * rank + kDataWaitMs] = wait_ms[rank];
  }
  return s;
}

LineOptions options() { return {0.5, 2, 3, true}; }

TEST(StepRecordTest, TheRawShareIsWithoutTheWeightingsWeights) {
  EXPECT_EQ(loss_balance(numbers(), next_statistics(), options()).raw_share, 0.5 * 2 / (0.5 * 2 + 2 * 0.5));
}

TEST(StepRecordTest, AJointLineHasTheDocumentedKeysAndValues) {
  auto const line = metrics_line(numbers(), next_statistics(), options());
  std::vector<std::string> keys;
  for (auto const& [key, value] : line.items()) keys.push_back(key);
  EXPECT_EQ(
      keys,
      (std::vector<std::string>{
          "step",          "samples",      "velocity_loss", "render_loss",   "total_loss",   "velocity_loss_ratio",
          "mse",           "lpips",        "perceptual",    "psnr",          "latent_std",   "velocity_weight",
          "render_weight", "grad_norm",    "grad_ratio",    "grad_cosine",   "lr",           "skipped",
          "step_ms",       "data_wait_ms", "comm_wait_ms",  "samples_per_s", "slowest_rank", "gpu_mem_mib"}));
  EXPECT_EQ(line["step"], 7);
  EXPECT_EQ(line["samples"], 28);
  EXPECT_EQ(line["velocity_loss"], 2.0);
  EXPECT_EQ(line["render_loss"], 0.5);
  EXPECT_EQ(line["total_loss"], 0.5 * 0.25 * 2 + 2 * 1.5 * 0.5);
  EXPECT_EQ(line["velocity_loss_ratio"], 0.25 / 1.75);
  EXPECT_EQ(line["mse"], 0.25);
  EXPECT_EQ(line["psnr"], 25.0);
  EXPECT_EQ(line["velocity_weight"], 0.25);
  EXPECT_EQ(line["render_weight"], 1.5);
  EXPECT_EQ(line["grad_norm"], 3.5);
  EXPECT_EQ(line["lr"], 1e-3);
  EXPECT_EQ(line["skipped"], false);
}

TEST(StepRecordTest, TermsOfTheRenderLossAreThereWhereTheyHaveAWeight) {
  auto step = numbers();
  step.statistics[model::kLpips] = 3, step.statistics[model::kPerceptual] = 6;
  auto with = options();
  with.lpips = true;
  auto const line = metrics_line(step, next_statistics(), with);
  EXPECT_EQ(line["lpips"], 3 / step.statistics[model::kSamples]);
  EXPECT_TRUE(std::isnan(line["perceptual"].get<double>()));
  with.perceptual = true;
  EXPECT_EQ(metrics_line(step, next_statistics(), with)["perceptual"], 6 / step.statistics[model::kSamples]);
}

TEST(StepRecordTest, GradientNormsAndTimesComeFromTheNextStepsStatistics) {
  auto const line = metrics_line(numbers(), next_statistics(), options());
  EXPECT_EQ(line["grad_ratio"], 0.75);
  EXPECT_EQ(line["grad_cosine"], -0.5);
  EXPECT_EQ(line["step_ms"], 50.0);
  EXPECT_EQ(line["slowest_rank"], 1);
  EXPECT_EQ(line["data_wait_ms"], 3.0);
  EXPECT_EQ(line["comm_wait_ms"], 0.75);
  EXPECT_EQ(line["samples_per_s"], 80.0);
}

TEST(StepRecordTest, NonFiniteNumbersAreNullInTheText) {
  auto step = numbers();
  step.statistics[model::kVelocityLoss] = kNan;
  step.statistics[model::kRenderLoss] = std::numeric_limits<double>::infinity();
  step.own[kGradNorm] = kNan;
  step.own[kSkipped] = 1;
  auto const line = nlohmann::json::parse(metrics_line(step, next_statistics(), options()).dump());
  for (auto const* key : {"velocity_loss", "render_loss", "total_loss", "velocity_loss_ratio", "grad_norm", "lpips",
                          "perceptual", "gpu_mem_mib"})
    EXPECT_TRUE(line.at(key).is_null()) << key;
  EXPECT_EQ(line["skipped"], true);
  EXPECT_EQ(line["psnr"], 25.0);
}

TEST(StepRecordTest, WithoutAVelocityGradientThereIsNoRatio) {
  auto next = next_statistics();
  next[model::kGradVelocitySq] = 0;
  auto const line = nlohmann::json::parse(metrics_line(numbers(), next, options()).dump());
  EXPECT_TRUE(line["grad_ratio"].is_null());
  EXPECT_TRUE(line["grad_cosine"].is_null());
}

TEST(StepRecordTest, AReconstructionLineHasTheSameKeysAndNoVelocity) {
  auto reconstruction = options();
  reconstruction.joint = false;
  auto const joint = metrics_line(numbers(), next_statistics(), options());
  auto const line = nlohmann::json::parse(metrics_line(numbers(), next_statistics(), reconstruction).dump());
  EXPECT_EQ(line.size(), joint.size());
  for (auto const* key : {"velocity_loss", "velocity_loss_ratio", "velocity_weight", "grad_ratio", "grad_cosine"})
    EXPECT_TRUE(line.at(key).is_null()) << key;
  EXPECT_EQ(line["total_loss"], 2 * 1.5 * 0.5);
}

at::Tensor doubles(std::vector<double> const& values) { return at::tensor(at::ArrayRef<double>(values)); }

TEST(StepRecordTest, NumbersArePassedOnOnceAndInOrder) {
  StepRecords records(1, at::kCPU);
  auto const slots = static_cast<std::size_t>(statistic_slots(1));
  auto push = [&](std::int64_t step) {
    auto const value = static_cast<double>(step);
    records.push(step, 10 * step, doubles(std::vector<double>(slots, value)), doubles({value, 2, 3, 4, 0}),
                 0.5 * value);
  };
  EXPECT_FALSE(records.take(true));
  EXPECT_FALSE(records.take(false));
  push(1);
  EXPECT_FALSE(records.take(false)) << "only one step was pushed";
  push(2);
  auto const first = records.take(false), second = records.take(true);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->step, 1);
  EXPECT_EQ(second->step, 2);
  EXPECT_EQ(second->samples, 20);
  EXPECT_EQ(second->comm_wait_ms, 1.0);
  EXPECT_EQ(second->statistics, std::vector<double>(slots, 2));
  EXPECT_EQ(second->own, (std::array<double, kOwnCount>{2, 2, 3, 4, 0}));
  EXPECT_FALSE(records.take(true)) << "taken twice";
}

}  // namespace
}  // namespace duoflow::launch
