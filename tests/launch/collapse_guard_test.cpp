#include "launch/collapse_guard.h"

#include <cmath>
#include <stdexcept>

#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

Config online() {
  Config config;
  config.latents = "online";
  config.training.freeze_reconstructor_renderer = false;
  config.training.collapse_guard = 0.2;
  return config;
}

TEST(CollapseGuardTest, WarnsOnceBelowItsShareOfTheFirstDeviation) {
  CollapseGuard guard(online());
  EXPECT_EQ(guard.watch(1, 4.0), "");
  EXPECT_EQ(guard.first(), 4.0);
  EXPECT_EQ(guard.watch(2, 0.8), "");  // the share itself
  auto const warning = guard.watch(3, 0.7);
  for (auto const* part : {"step 3", " 4 ", "0.7", "0.2"})
    EXPECT_NE(warning.find(part), std::string::npos) << part << " is not in: " << warning;
  EXPECT_EQ(guard.watch(4, 0.6), "");
}

TEST(CollapseGuardTest, MayEndTheRun) {
  auto config = online();
  config.training.collapse_action = "stop";
  CollapseGuard guard(config);
  guard.watch(1, 1.0);
  EXPECT_THROW(guard.watch(2, 0.1), std::runtime_error);
}

TEST(CollapseGuardTest, AResumedRunIsMeasuredAgainstItsOwnBeginning) {
  CollapseGuard guard(online(), 10.0);
  EXPECT_NE(guard.watch(100, 1.0), "");
  EXPECT_EQ(guard.first(), 10.0);
}

TEST(CollapseGuardTest, ConstantLatentsAndBadStepsAreNoCollapse) {
  CollapseGuard guard(online());
  EXPECT_EQ(guard.watch(1, 0), "");
  EXPECT_EQ(guard.watch(2, std::nan("")), "");
  EXPECT_EQ(guard.first(), 0);
}

TEST(CollapseGuardTest, WatchesOnlyWhereTheReconstructorTrainsAgainstTheVelocityLoss) {
  auto const warns = [](Config const& config) {
    CollapseGuard guard(config);
    guard.watch(1, 1.0);
    return !guard.watch(2, 0.01).empty();
  };
  auto frozen = online(), cached = online(), stage_1 = online(), off = online();
  frozen.training.freeze_reconstructor_renderer = true;
  cached.latents = "cached";
  stage_1.objective = "reconstruction";
  off.training.collapse_guard = 0;
  EXPECT_TRUE(warns(online()));
  for (auto const& config : {frozen, cached, stage_1, off}) EXPECT_FALSE(warns(config));
}

}  // namespace
}  // namespace duoflow::launch
