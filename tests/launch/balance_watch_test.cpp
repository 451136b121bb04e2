#include "launch/balance_watch.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "launch/run_log.h"
#include "tests/launch/captured_stderr.h"
#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {

LossBalance balance(double velocity_share, double grad_ratio, double raw_share = 0.5) {
  return {0.03, 0.5, velocity_share, 1, raw_share, grad_ratio, 0};
}

std::string hint_of(std::vector<LossBalance> const& steps) {
  BalanceWatch watch(static_cast<std::int64_t>(steps.size()));
  std::optional<std::string> hint;
  for (auto const& one : steps) {
    EXPECT_FALSE(hint);  // only at the end of an interval
    hint = watch.add(one);
  }
  return hint.value_or("");
}

TEST(BalanceWatchTest, SharesWithinTheAdvisedRangeSayNothing) {
  for (double const share : {0.2, 0.5, 0.8})
    for (double const ratio : {0.25, 1.0, 4.0}) EXPECT_EQ(hint_of({balance(share, ratio)}), "");
}

TEST(BalanceWatchTest, AShareOutsideItNamesTheNumbersAndTheKeyToChange) {
  auto const low = hint_of({balance(0.1, 1), balance(0.14, 1)});
  for (auto const* part :
       {"last 2 steps", "velocity loss 0.03", "render loss 0.5", "is 0.12 of the total", "0.5 of the gradients",
        "0.2 to 0.8", "raise velocity_loss_weight, lower render_loss_weight"})
    EXPECT_NE(low.find(part), low.npos) << part << " is not in: " << low;
  auto const high = hint_of({balance(0.9, 1)});
  EXPECT_NE(high.find("raise render_loss_weight, lower velocity_loss_weight"), high.npos) << high;
}

TEST(BalanceWatchTest, WhereTheLossesBalanceByConstructionTheGradientsDecide) {
  auto const render_pulls = hint_of({balance(0.5, 20)}), velocity_pulls = hint_of({balance(0.5, 0.01)});
  EXPECT_NE(render_pulls.find("raise velocity_loss_weight"), render_pulls.npos) << render_pulls;
  EXPECT_NE(velocity_pulls.find("raise render_loss_weight"), velocity_pulls.npos) << velocity_pulls;
}

TEST(BalanceWatchTest, StepsOfOneLossAndStepsWithoutNumbersDoNotCount) {
  double const nan = std::nan("");
  LossBalance const velocity_alone{0.03, nan, 0.03, 0.03, nan, nan, nan}, skipped{nan, nan, nan, nan, nan, nan, nan};
  EXPECT_EQ(hint_of({velocity_alone, skipped, velocity_alone}), "");
  EXPECT_EQ(hint_of({velocity_alone, balance(0.5, 1), skipped}), "");
  EXPECT_NE(hint_of({velocity_alone, balance(0.95, 1), skipped}), "");
}

TEST(BalanceWatchTest, RawLossesThatTheWeightingBringsTogetherAreSaidOnceARun) {
  BalanceWatch watch(2);
  EXPECT_FALSE(watch.add(balance(0.5, 1, 0.1)));
  auto const hint = watch.add(balance(0.5, 1, 0.04)).value_or("");
  for (auto const* part :
       {"by themselves are out of balance over the last 2 steps", "alone is 0.07", "velocity loss 0.03"})
    EXPECT_NE(hint.find(part), hint.npos) << part << " is not in: " << hint;
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(watch.add(balance(0.5, 1, 0.04)));
  watch.add(balance(0.9, 1, 0.04));
  EXPECT_NE(watch.add(balance(0.9, 1, 0.04)).value_or("").find("raise render_loss_weight"), std::string::npos);
  EXPECT_EQ(hint_of({balance(0.5, 1, 0.2), balance(0.5, 1, 0.8)}), "");
}

TEST(BalanceWatchTest, EveryIntervalStartsAnew) {
  BalanceWatch watch(2), off(0);
  EXPECT_FALSE(watch.add(balance(0.95, 1)));
  EXPECT_TRUE(watch.add(balance(0.95, 1)));
  EXPECT_FALSE(watch.add(balance(0.5, 1)));
  EXPECT_FALSE(watch.add(balance(0.5, 1)));
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(off.add(balance(1, 0)));
}

// Through the log: rank 0 says it, others do not, and only the intervals that are out of balance.
TEST(BalanceWatchTest, TheLogSaysItOncePerIntervalOnRankZero) {
  Config config;
  config.flow.balance_hint_every = 3;
  LineOptions const line{1, 1, 2, true};
  StepNumbers numbers;
  numbers.statistics.assign(static_cast<std::size_t>(statistic_slots(2)), 0);
  numbers.statistics[model::kVelocityLoss] = 4, numbers.statistics[model::kRenderLoss] = 400;
  numbers.statistics[model::kSamples] = 4;
  numbers.own[kVelocityWeight] = numbers.own[kRenderWeight] = 1;
  auto next = numbers.statistics;
  next[model::kGradVelocitySq] = next[model::kGradRenderSq] = 1;
  auto const hints = [&](int rank, std::string const& weighting) {
    ScratchFolder const folder;
    config.flow.weighting = weighting;
    CapturedStderr captured;
    RunLog log(folder.path().string(), config, rank, line, 0);
    for (int i = 1; i <= 7; ++i) {
      numbers.step = i;
      log.step(numbers, next);
    }
    auto const text = captured.text();
    std::size_t count = 0;
    for (auto at = text.find("hint: the losses are out of balance"); at != text.npos; at = text.find("hint: ", at + 1))
      ++count;
    return count;
  };
  EXPECT_EQ(hints(0, "fixed"), 2U);
  EXPECT_EQ(hints(1, "fixed"), 0U);
  EXPECT_EQ(hints(0, "separate_graphs"), 0U);  // its losses train different parts
}

}  // namespace
}  // namespace duoflow::launch
