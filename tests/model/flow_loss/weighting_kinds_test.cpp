// Each further weighting against its formula (the files' heads have them), and what all adaptive ones promise.

#include <cmath>
#include <limits>
#include <tuple>

#include "tests/model/flow_loss/weighting_cases.h"

namespace duoflow::model {
namespace {

double const kNan = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

WeightingOptions named(std::string const& name) {
  WeightingOptions options;
  options.name = name;
  return options;
}

using Pair = std::pair<double, double>;
Pair numbers(LossWeights const& weights) { return {weights.velocity.item<double>(), weights.render.item<double>()}; }
Pair step(Weighting& weighting, double velocity_loss, double render_loss, bool finite = true) {
  return numbers(weighting.weights(scalar(velocity_loss), scalar(render_loss), scalar(finite ? 1 : 0)));
}
void observe(Weighting& weighting, double velocity_norm, double render_norm, bool valid = true) {
  weighting.observe({scalar(velocity_norm * velocity_norm), scalar(render_norm * render_norm)}, scalar(valid ? 1 : 0));
}
double velocity_weight(Weighting& weighting) { return step(weighting, 1, 1).first; }

void expect_near(Pair const& found, Pair const& expected) {
  EXPECT_NEAR(found.first, expected.first, 1e-6 * expected.first);
  EXPECT_NEAR(found.second, expected.second, 1e-6 * expected.second);
}

std::vector<at::Tensor> copy_of_state(Weighting const& weighting) {
  std::vector<at::Tensor> copies;
  for (auto const& [name, tensor] : weighting.state()) copies.push_back(tensor.clone());
  return copies;
}
void expect_state(Weighting const& weighting, std::vector<at::Tensor> const& expected) {
  auto const state = weighting.state();
  ASSERT_EQ(state.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_TRUE(at::equal(state[i].second, expected[i])) << state[i].first;
}

TEST(WeightingTableTest, EveryNameMakesAWeighting) {
  EXPECT_EQ(weighting_names().size(), 10U);
  for (auto const& name : weighting_names()) EXPECT_NE(make(named(name)), nullptr) << name;
}

TEST(WeightingTableTest, WhatKnowsItsWeightsBeforeTheForwardSaysSo) {
  for (std::string const name : {"fixed", "schedule", "two_stage", "alternating", "separate_graphs", "pcgrad"}) {
    EXPECT_FALSE(make(named(name))->needs_statistics()) << name;
    EXPECT_TRUE(make(named(name))->state().empty()) << name;
  }
  for (std::string const name : {"normalized", "normalized_each", "gradient_balance"}) {
    auto options = named(name);
    EXPECT_TRUE(make(options)->needs_statistics()) << name;
    EXPECT_FALSE(make(options)->standing_weights()) << name;
    options.lagged = true;
    EXPECT_TRUE(make(options)->standing_weights()) << name;
  }
  EXPECT_TRUE(make(named("uncertainty"))->standing_weights());
}

TEST(WeightingTableTest, OnlyNormalizedEachHasALateRenderWeight) {
  for (auto const& name : weighting_names()) {
    auto const weighting = make(named(name));
    bool const late = !weighting->known_render_weight(0) && !weighting->standing_weights();
    EXPECT_EQ(late, name == "normalized_each") << name;
  }
}

// Of a captured step every one of these answers is repeated in every step that follows.
TEST(WeightingTableTest, WhatDependsOnTheStepSaysSo) {
  auto const answers = [](Weighting const& weighting, std::int64_t at) {
    auto const known = weighting.needs_statistics() ? Pair() : weighting.weights_at(at);
    return std::tuple(known, weighting.known_render_weight(at), weighting.observes(GradientSpace::at_v_pred, at),
                      weighting.observes(GradientSpace::over_parameters, at));
  };
  for (auto const& name : weighting_names()) {
    for (bool const lagged : {false, true}) {
      for (std::int64_t const interval : {0, 1, 3}) {
        auto options = named(name);
        options.lagged = lagged;
        options.parameter_interval = interval;
        options.warmup_steps = options.velocity_only_steps = interval;
        auto const weighting = make(options);
        bool changes = false;
        for (std::int64_t at = 1; at < 12; ++at) changes = changes || answers(*weighting, at) != answers(*weighting, 0);
        EXPECT_EQ(weighting->depends_on_step(), changes) << name << ", interval " << interval << ", lagged " << lagged;
      }
    }
  }
}

TEST(WeightingTableTest, AnEmaOrClampThatWouldNotActIsAnError) {
  for (std::string const name : {"two_stage", "alternating", "separate_graphs", "pcgrad"}) {
    auto options = named(name);
    options.clamp_max = 10;
    expect_error_with(options, "'" + name + "' has no clamp and no EMA");
  }
  auto options = named("uncertainty");
  options.ema = 0.5;
  expect_error_with(options, "'uncertainty' has no EMA");
}

TEST(NormalizedEachWeightingTest, EachWeightIsOneOverItsLoss) {
  auto const weighting = make(named("normalized_each"));
  expect_near(step(*weighting, 0.02, 4), {1 / (0.02 + 1e-8), 1 / (4 + 1e-8)});
  expect_near(step(*weighting, 0, 0.5), {1e8, 1 / (0.5 + 1e-8)});
}

TEST(NormalizedEachWeightingTest, ClampAndEmaActOnEach) {
  auto options = named("normalized_each");
  options.clamp_min = 0.5, options.clamp_max = 8, options.ema = 0.75;
  auto const weighting = make(options);
  expect_near(step(*weighting, 1e-3, 10), {8, 0.5});
  expect_near(step(*weighting, 0.25, 0.5), {0.75 * 8 + 0.25 * 4, 0.75 * 0.5 + 0.25 * 2});
}

TEST(TwoStageWeightingTest, TheRenderLossJoinsAtTheBoundary) {
  auto options = named("two_stage");
  options.velocity_only_steps = 3;
  auto const weighting = make(options);
  for (std::int64_t const at : {0, 1, 2}) EXPECT_EQ(weighting->weights_at(at), Pair(1, 0));
  for (std::int64_t const at : {3, 4, 1000}) EXPECT_EQ(weighting->weights_at(at), Pair(1, 1));
  options.velocity_only_steps = -1;
  expect_error_with(options, "-1 steps");
}

TEST(AlternatingWeightingTest, PeriodsTakeTurns) {
  auto options = named("alternating");
  EXPECT_EQ(make(options)->weights_at(0), Pair(1, 0));
  EXPECT_EQ(make(options)->weights_at(1), Pair(0, 1));
  options.alternating_period = 3;
  auto const weighting = make(options);
  for (std::int64_t const at : {0, 2, 6, 8}) EXPECT_EQ(weighting->weights_at(at), Pair(1, 0)) << at;
  for (std::int64_t const at : {3, 5, 9, 11}) EXPECT_EQ(weighting->weights_at(at), Pair(0, 1)) << at;
  options.alternating_period = 0;
  expect_error_with(options, "period of 0");
}

TEST(CutRuleTest, IsTheSumUnlessTheNameSaysOtherwise) {
  for (auto const& name : weighting_names()) {
    auto const expected = name == "pcgrad"            ? CutRule::sum_without_conflict
                          : name == "separate_graphs" ? CutRule::velocity_alone
                                                      : CutRule::sum;
    EXPECT_EQ(make(named(name))->cut_rule(), expected) << name;
  }
}

TEST(UncertaintyWeightingTest, LogVariancesDescendTheirGradient) {
  auto options = named("uncertainty");
  options.uncertainty_lr = 0.1;
  auto const weighting = make(options);
  double s_v = 0, s_r = 0;
  for (auto const& [velocity, render] : {Pair(0.5, 1.75), Pair(0.25, 0.9), Pair(1.5, 0.125)}) {
    expect_near(numbers(*weighting->standing_weights()), {std::exp(-s_v), std::exp(-s_r)});
    expect_near(step(*weighting, velocity, render), {std::exp(-s_v), std::exp(-s_r)});  // those of the step before
    s_v -= 0.1 * (1 - std::exp(-s_v) * velocity);
    s_r -= 0.1 * (1 - std::exp(-s_r) * render);
  }
  expect_near(numbers(*weighting->standing_weights()), {std::exp(-s_v), std::exp(-s_r)});
}

TEST(UncertaintyWeightingTest, RestsWhereTheWeightedLossIsOne) {
  auto options = named("uncertainty");
  options.uncertainty_lr = 0.5;
  auto const weighting = make(options);
  for (int i = 0; i < 200; ++i) step(*weighting, 0.01, 25);
  expect_near(numbers(*weighting->standing_weights()), {100, 1 / 25.0});
}

TEST(UncertaintyWeightingTest, OneBadBatchMovesALogVarianceByItsRateAtMost) {
  auto options = named("uncertainty");
  options.uncertainty_lr = 0.25;
  auto const weighting = make(options);
  step(*weighting, 1e12, 1);
  expect_near(numbers(*weighting->standing_weights()), {std::exp(-0.25), 1});
}

TEST(UncertaintyWeightingTest, TheClampBoundsTheWeightsWithoutWindUp) {
  auto options = named("uncertainty");
  options.uncertainty_lr = 1, options.clamp_min = 0.5, options.clamp_max = 2;
  auto const weighting = make(options);
  for (int i = 0; i < 50; ++i) step(*weighting, 1e-6, 1e6);
  expect_near(numbers(*weighting->standing_weights()), {2, 0.5});
  step(*weighting, 1e6, 1e-6);  // answers at once
  EXPECT_NEAR(numbers(*weighting->standing_weights()).first, 2 * std::exp(-1.0), 1e-6);
  options.uncertainty_lr = 0;
  expect_error_with(options, "uncertainty_lr is 0");
  options.uncertainty_lr = 1, options.clamp_min = 3;
  expect_error_with(options, "clamp is [3, 2]");
}

TEST(GradientBalanceWeightingTest, TheWeightIsTheRatioOfTheNorms) {
  auto const weighting = make(named("gradient_balance"));
  EXPECT_EQ(step(*weighting, 3, 5), Pair(1, 1));  // nothing measured yet: the losses do not count
  observe(*weighting, 0.5, 4);
  expect_near(step(*weighting, 3, 5), {8, 1});
  expect_near(step(*weighting, 7, 2), {8, 1});  // what is measured once is not measured again
}

TEST(GradientBalanceWeightingTest, ClampAndEmaActOnTheRatio) {
  auto options = named("gradient_balance");
  options.clamp_max = 10, options.ema = 0.5;
  auto const weighting = make(options);
  observe(*weighting, 1, 100);
  EXPECT_NEAR(velocity_weight(*weighting), 10, 1e-6);
  observe(*weighting, 1, 4);
  EXPECT_NEAR(velocity_weight(*weighting), 7, 1e-6);
}

TEST(GradientBalanceWeightingTest, LaggedAnswersOneStepLaterHoweverEarlyItWasTold) {
  auto options = named("gradient_balance");
  options.lagged = true;
  auto const told_late = make(options), told_early = make(options);
  observe(*told_early, 1, 3);
  EXPECT_EQ(numbers(*told_early->standing_weights()), Pair(1, 1));
  observe(*told_late, 1, 3);
  for (auto const& weighting : {told_late.get(), told_early.get()}) {
    EXPECT_EQ(step(*weighting, 1, 1), Pair(1, 1));
    expect_near(numbers(*weighting->standing_weights()), {3, 1});
  }
}

TEST(GradientBalanceWeightingTest, OverParametersItIsKnownBeforeTheForwardAndWantsEveryNthStep) {
  auto options = named("gradient_balance");
  EXPECT_TRUE(make(options)->observes(GradientSpace::at_v_pred, 7));
  EXPECT_FALSE(make(options)->observes(GradientSpace::over_parameters, 0));
  options.parameter_interval = 5, options.lagged = true;  // it lags already
  auto const weighting = make(options);
  EXPECT_FALSE(weighting->observes(GradientSpace::at_v_pred, 5));
  for (std::int64_t at = 0; at < 11; ++at)
    EXPECT_EQ(weighting->observes(GradientSpace::over_parameters, at), at % 5 == 0) << at;
  observe(*weighting, 2, 5);
  expect_near(numbers(*weighting->standing_weights()), {2.5, 1});
}

TEST(GradientBalanceWeightingTest, ExposedItWantsTheStepsOwnNormsAndAnswersWithThem) {
  WeightingOptions options{.name = "gradient_balance", .exposed = true};
  auto const weighting = make(options);
  EXPECT_TRUE(weighting->observes(GradientSpace::at_v_pred_now, 0));
  EXPECT_FALSE(weighting->observes(GradientSpace::at_v_pred, 0));
  EXPECT_FALSE(weighting->standing_weights());  // known at the cut
  EXPECT_FALSE(make({.name = "gradient_balance"})->observes(GradientSpace::at_v_pred_now, 0));
  options.parameter_interval = 5;
  EXPECT_THROW(make(options), std::invalid_argument);
  EXPECT_THROW(make({.name = "normalized", .exposed = true}), std::invalid_argument);
}

TEST(GradientBalanceWeightingTest, AMeasureThatIsNoneIsNotLearned) {
  auto const weighting = make(named("gradient_balance"));
  observe(*weighting, 1, 3);
  auto const before = copy_of_state(*weighting);
  observe(*weighting, 1, 7, /*valid=*/false);
  for (auto const& [velocity, render] :
       {Pair(0, 7), Pair(1, 0), Pair(0, 0), Pair(kNan, 1), Pair(1, kInf), Pair(kInf, 1), Pair(kInf, kInf)})
    observe(*weighting, velocity, render);
  expect_state(*weighting, before);
}

TEST(AdaptiveWeightingTest, ANonFiniteLossNeverEntersTheState) {
  for (std::string const name : {"normalized", "normalized_each", "uncertainty", "gradient_balance"}) {
    for (bool const lagged : {false, true}) {
      SCOPED_TRACE(name);
      auto options = named(name);
      options.lagged = lagged;
      auto const weighting = make(options);
      observe(*weighting, 1, 2);
      for (int i = 0; i < 2; ++i) step(*weighting, 0.5, 0.25);
      auto const before = copy_of_state(*weighting);
      ASSERT_FALSE(before.empty());
      for (auto const& [velocity, render] : {Pair(kNan, 1), Pair(1, kNan), Pair(kInf, 1), Pair(1, kInf)}) {
        step(*weighting, velocity, render, false);
        observe(*weighting, velocity, render);
      }
      expect_state(*weighting, before);
    }
  }
}

TEST(AdaptiveWeightingTest, CopyingIntoTheStateContinuesTheRun) {
  for (std::string const name : {"normalized_each", "uncertainty", "gradient_balance"}) {
    for (bool const lagged : {false, true}) {
      SCOPED_TRACE(name);
      auto options = named(name);
      options.lagged = lagged, options.ema = name == "uncertainty" ? 0 : 0.75;
      auto const first = make(options), second = make(options);
      for (double const norm : {2.0, 5.0}) {
        observe(*first, 1, norm);
        step(*first, 0.25, norm);
      }
      auto const from = first->state(), to = second->state();
      ASSERT_EQ(from.size(), to.size());
      for (std::size_t i = 0; i < from.size(); ++i) {
        EXPECT_EQ(from[i].first, to[i].first);
        to[i].second.copy_(from[i].second);
      }
      for (auto const& weighting : {first.get(), second.get()}) observe(*weighting, 3, 1);
      EXPECT_EQ(step(*first, 2, 3), step(*second, 2, 3));
      EXPECT_EQ(step(*first, 1, 1), step(*second, 1, 1));
    }
  }
}

TEST(AdaptiveWeightingTest, StatesOfDifferentWeightingsHaveDifferentNames) {
  std::vector<std::string> seen;
  for (auto const& name : weighting_names())
    for (auto const& [key, tensor] : make(named(name))->state()) {
      EXPECT_EQ(std::count(seen.begin(), seen.end(), key), 0) << key;
      seen.push_back(key);
    }
  EXPECT_EQ(seen.size(), 2U + 4 + 1 + 2);
}

}  // namespace
}  // namespace duoflow::model
