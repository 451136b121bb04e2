#include "launch/schedule.h"

#include <cmath>
#include <numbers>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

double rate(ScheduleOptions const& options, double updates) {
  auto const result = learning_rate(options, at::full({}, updates, at::kFloat));
  EXPECT_EQ(result.scalar_type(), at::kFloat);
  EXPECT_EQ(result.dim(), 0);
  return result.item<double>();
}

// The result is rounded to fp32.
void expect_rate(ScheduleOptions const& options, double updates, double expected) {
  EXPECT_NEAR(rate(options, updates), expected, 1e-7 * options.peak)
      << options.type << " after " << updates << " updates";
}

TEST(ScheduleTest, WarmUpRisesLinearlyFromZeroWhateverFollows) {
  for (auto const* type : {"cosine", "linear", "constant"}) {
    ScheduleOptions const options{0.5, 10, 110, type};
    expect_rate(options, 0, 0);
    expect_rate(options, 1, 0.05);
    expect_rate(options, 9, 0.45);
    expect_rate(options, 10, 0.5);
  }
}

TEST(ScheduleTest, AnImportedRunsSkippedUpdatesAreStepsOfTheScheduleToo) {
  ScheduleOptions const options{2, 10, 110, "cosine", 25};
  expect_rate(options, 10, 1 + std::numbers::sqrt2 / 2);
}

TEST(ScheduleTest, CosineFallsAsHalfACosineToZeroAtTheEnd) {
  ScheduleOptions const options{2, 10, 110, "cosine"};
  expect_rate(options, 11, 1 + std::cos(std::numbers::pi / 100));
  expect_rate(options, 35, 1 + std::numbers::sqrt2 / 2);
  expect_rate(options, 60, 1);
  expect_rate(options, 109, 1 + std::cos(std::numbers::pi * 0.99));
  expect_rate(options, 110, 0);
}

TEST(ScheduleTest, LinearFallsToZeroAtTheEndAndStays) {
  ScheduleOptions const options{2, 10, 110, "linear"};
  expect_rate(options, 11, 1.98);
  expect_rate(options, 60, 1);
  expect_rate(options, 109, 0.02);
  expect_rate(options, 110, 0);
  expect_rate(options, 200, 0);
}

TEST(ScheduleTest, ConstantStays) {
  ScheduleOptions const options{2, 10, 110, "constant"};
  expect_rate(options, 11, 2);
  expect_rate(options, 1e6, 2);
}

TEST(ScheduleTest, WithoutWarmUpTheFirstUpdateHasThePeak) {
  for (auto const* type : {"cosine", "linear", "constant"}) expect_rate({0.5, 0, 100, type}, 0, 0.5);
}

TEST(ScheduleTest, ARunThatEndsInOrAtTheWarmUpOnlyRises) {
  for (auto const* type : {"cosine", "linear", "constant"}) {
    expect_rate({1, 10, 4, type}, 3, 0.3);
    expect_rate({1, 10, 10, type}, 9, 0.9);
    expect_rate({1, 10, 10, type}, 10, 1);
  }
}

}  // namespace
}  // namespace duoflow::launch
