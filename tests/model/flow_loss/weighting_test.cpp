#include <cmath>
#include <limits>

#include "tests/model/flow_loss/weighting_cases.h"

namespace duoflow::model {
namespace {

WeightingOptions normalized(double clamp_min = 0, double clamp_max = 0, double ema = 0) {
  WeightingOptions options;
  options.name = "normalized";
  options.clamp_min = clamp_min, options.clamp_max = clamp_max, options.ema = ema;
  return options;
}

double velocity_weight(Weighting& weighting, double velocity_loss, double render_loss, bool finite = true) {
  return weighting.weights(scalar(velocity_loss), scalar(render_loss), scalar(finite ? 1 : 0)).velocity.item<double>();
}

TEST(WeightingTest, AnUnknownNameIsAnErrorListingTheNames) {
  WeightingOptions options;
  options.name = "normalised";
  expect_error_with(options,
                    "'normalised', use one of: fixed, normalized, normalized_each, schedule, "
                    "two_stage, alternating, separate_graphs, uncertainty, gradient_balance, pcgrad");
}

TEST(WeightingTest, AnOptionThatWouldNotActIsAnError) {
  WeightingOptions options;
  options.ema = 0.9;
  expect_error_with(options, "'fixed' has no clamp and no EMA");
  options = normalized(2, 1);
  expect_error_with(options, "clamp is [2, 1]");
  expect_error_with(normalized(0.1, 0), "clamp is [0.1, 0]");
  expect_error_with(normalized(0, 0, 1), "EMA is 1");
}

TEST(FixedWeightingTest, BothWeightsAreOneAtEveryStep) {
  auto const weighting = make({});
  EXPECT_FALSE(weighting->needs_statistics());
  for (std::int64_t const step : {0, 1, 100'000}) EXPECT_EQ(weighting->weights_at(step), std::make_pair(1.0, 1.0));
  EXPECT_TRUE(weighting->state().empty());
  EXPECT_THROW(weighting->weights(scalar(1), scalar(1), scalar(1)), std::logic_error);
}

TEST(ScheduleWeightingTest, TheStepFormSwitchesAtTheEndOfWarmUp) {
  WeightingOptions options;
  options.name = "schedule", options.warmup_steps = 10;
  auto const weighting = make(options);
  for (std::int64_t const step : {0, 9}) EXPECT_EQ(weighting->weights_at(step), std::make_pair(2.0, 0.5));
  for (std::int64_t const step : {10, 11, 1'000'000}) EXPECT_EQ(weighting->weights_at(step), std::make_pair(0.5, 2.0));
  EXPECT_EQ(weighting->known_render_weight(9), 0.5);
}

TEST(ScheduleWeightingTest, TheLinearFormInterpolatesOverWarmUp) {
  WeightingOptions options;
  options.name = "schedule", options.schedule_form = "linear", options.warmup_steps = 10;
  auto const weighting = make(options);
  EXPECT_EQ(weighting->weights_at(0), std::make_pair(2.0, 0.5));
  auto const [v, r] = weighting->weights_at(4);
  EXPECT_NEAR(v, 1.4, 1e-15);
  EXPECT_NEAR(r, 1.1, 1e-15);
  EXPECT_NEAR(weighting->weights_at(9).first, 0.65, 1e-15);
  for (std::int64_t const step : {10, 11}) EXPECT_EQ(weighting->weights_at(step), std::make_pair(0.5, 2.0));
}

TEST(ScheduleWeightingTest, WithoutWarmUpTheEndValuesHoldFromTheStart) {
  WeightingOptions options;
  options.name = "schedule", options.warmup_steps = 0;
  for (std::string const form : {"step", "linear"}) {
    options.schedule_form = form;
    EXPECT_EQ(make(options)->weights_at(0), std::make_pair(0.5, 2.0));
  }
  options.schedule_form = "cosine";
  expect_error_with(options, "'cosine', use one of: step, linear");
  options.schedule_form = "step", options.velocity_end = -1;
  expect_error_with(options, "weight -1");
}

TEST(NormalizedWeightingTest, TheWeightIsTheRatioOfTheLosses) {
  auto const weighting = make(normalized());
  EXPECT_TRUE(weighting->needs_statistics());
  LossWeights const w = weighting->weights(scalar(0.02), scalar(0.3), scalar(1));
  EXPECT_FLOAT_EQ(w.velocity.item<float>(), static_cast<float>(0.3 / (0.02 + 1e-8)));
  EXPECT_EQ(w.render.item<float>(), 1);
  EXPECT_EQ(weighting->known_render_weight(7), 1);
  EXPECT_EQ(w.velocity.scalar_type(), at::kFloat);
  EXPECT_FLOAT_EQ(static_cast<float>(velocity_weight(*weighting, 0, 0.5)), 5e7f);  // bounded by the epsilon alone
}

TEST(NormalizedWeightingTest, TheClampBoundsTheRawWeight) {
  auto const weighting = make(normalized(0.5, 4));
  EXPECT_EQ(velocity_weight(*weighting, 1e-9, 1), 4);
  EXPECT_EQ(velocity_weight(*weighting, 1, 1e-3), 0.5);
  EXPECT_FLOAT_EQ(static_cast<float>(velocity_weight(*weighting, 1, 2)), 2);
}

TEST(NormalizedWeightingTest, TheFirstValueStartsTheMovingAverage) {
  auto const weighting = make(normalized(0, 10, 0.9));
  EXPECT_NEAR(velocity_weight(*weighting, 1, 4), 4, 1e-6);
  EXPECT_NEAR(velocity_weight(*weighting, 1, 2), 0.9 * 4 + 0.1 * 2, 1e-6);
  EXPECT_NEAR(velocity_weight(*weighting, 1, 1000), 0.9 * 3.8 + 0.1 * 10, 1e-6);  // clamped before averaging
}

TEST(NormalizedWeightingTest, ANonFiniteLossNeverEntersTheState) {
  double const nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  auto const weighting = make(normalized(0, 100, 0.5));
  EXPECT_EQ(velocity_weight(*weighting, nan, 1, false), 1);  // before the first finite one
  EXPECT_NEAR(velocity_weight(*weighting, 1, 3), 3, 1e-6);   // and the moving average starts here
  std::vector<at::Tensor> before;
  for (auto const& [name, tensor] : weighting->state()) before.push_back(tensor.clone());
  velocity_weight(*weighting, 1, 7, false);  // finite numbers of a step that is to be skipped
  velocity_weight(*weighting, nan, 1, true);
  velocity_weight(*weighting, 1, nan, true);
  velocity_weight(*weighting, 1, inf, false);
  auto const after = weighting->state();
  for (std::size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(at::equal(after[i].second, before[i])) << after[i].first;
  EXPECT_NEAR(velocity_weight(*weighting, 1, 5), 4, 1e-6);
}

TEST(NormalizedWeightingTest, CopyingIntoTheStateContinuesTheRun) {
  auto const first = make(normalized(0, 0, 0.75)), second = make(normalized(0, 0, 0.75));
  velocity_weight(*first, 0.3, 0.7);
  velocity_weight(*first, 0.2, 0.9);
  auto const from = first->state(), to = second->state();
  ASSERT_EQ(from.size(), to.size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    EXPECT_EQ(from[i].first, to[i].first);
    at::Tensor live = to[i].second;
    live.copy_(from[i].second);
  }
  EXPECT_EQ(velocity_weight(*first, 0.1, 0.8), velocity_weight(*second, 0.1, 0.8));
}

TEST(NormalizedWeightingTest, BothWeightedLossesAreEqualByConstruction) {
  auto const weighting = make(normalized());
  for (double const velocity : {0.9, 0.05, 0.001}) {
    EXPECT_NEAR(velocity_weight(*weighting, velocity, 0.25) * velocity, 0.25, 1e-5);
  }
}

TEST(LaggedWeightingTest, GivesTheLastStepsWeightsBeforeTheForwardAndOneAtFirst) {
  WeightingOptions options = normalized();
  options.lagged = true;
  auto const weighting = make(options);
  EXPECT_EQ(weighting->standing_weights()->velocity.item<float>(), 1);
  EXPECT_EQ(velocity_weight(*weighting, 1, 3), 1);
  EXPECT_NEAR(weighting->standing_weights()->velocity.item<double>(), 3, 1e-6);
  velocity_weight(*weighting, 1, std::nan(""), false);  // leaves what stands
  EXPECT_NEAR(velocity_weight(*weighting, 1, 5), 3, 1e-6);
  EXPECT_EQ(weighting->standing_weights()->render.item<float>(), 1);
  EXPECT_FALSE(make(normalized())->standing_weights().has_value());
}

TEST(LaggedWeightingTest, TheClampHoldsBeforeAnyStep) {
  auto options = normalized(2, 10);
  options.lagged = true;
  auto const weighting = make(options);
  EXPECT_EQ(weighting->standing_weights()->velocity.item<float>(), 2);
  EXPECT_EQ(weighting->standing_weights()->render.item<float>(), 1);  // not an adaptive one
  options = normalized(0.1, 0.5);
  options.name = "normalized_each", options.lagged = true;
  auto const each = make(options);
  EXPECT_EQ(each->standing_weights()->velocity.item<float>(), 0.5F);
  EXPECT_EQ(each->standing_weights()->render.item<float>(), 0.5F);
}

TEST(LaggedWeightingTest, PuttingTheStateBackUndoesAStep) {
  WeightingOptions options = normalized(0, 0, 0.5);
  options.lagged = true;
  auto const weighting = make(options);
  velocity_weight(*weighting, 1, 3);
  std::vector<at::Tensor> before;
  for (auto const& [name, tensor] : weighting->state()) before.push_back(tensor.clone());
  double const next = velocity_weight(*weighting, 1, 9);
  for (std::size_t i = 0; i < before.size(); ++i) weighting->state()[i].second.copy_(before[i]);
  EXPECT_EQ(velocity_weight(*weighting, 1, 9), next);
}

}  // namespace
}  // namespace duoflow::model
