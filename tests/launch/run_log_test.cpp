#include "launch/run_log.h"

#include <gtest/gtest.h>

#include "launch/step_statistics.h"
#include "tests/launch/captured_stderr.h"
#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {

// A step of 8 samples on two ranks in micro-steps of 2; samples 3 to 12 of the order are skipped, so that the second
// step, from position 18, has been preceded by 0-2 and 13-17.
class SkippedStep : public testing::Test {
 protected:
  SkippedStep() {
    config_.training.global_batch_size = 8;
    config_.training.batch_size_per_gpu = 2;
    numbers_.step = 2;
    numbers_.statistics.assign(static_cast<std::size_t>(statistic_slots(2)), 0);
  }
  std::string said(std::vector<std::string> const& skip, std::int64_t samples) {
    config_.data.skip = skip;
    numbers_.samples = samples;
    ScratchFolder const folder;
    CapturedStderr captured;
    RunLog(folder.path().string(), config_, 0, {1, 1, 2, true}, 0).skipped(numbers_);
    return captured.text();
  }
  void bad_from(int rank, std::int64_t position) {
    numbers_.statistics[static_cast<std::size_t>(kFirstPerRank + kPerRank * rank + kFirstBadPosition)] =
        static_cast<double>(position + 1);
  }
  Config config_;
  StepNumbers numbers_;
};

TEST_F(SkippedStep, NamesTheSamplesOfTheWholeStepOrTheMicroStep) {
  EXPECT_NE(said({}, 16).find("samples 8 to 15 of the order"), std::string::npos);
  bad_from(1, 14);
  EXPECT_NE(said({}, 16).find("on rank 1, samples 14 to 15 of the order"), std::string::npos);
}

TEST_F(SkippedStep, CountsPositionsThatDataSkipPassesOver) {
  EXPECT_NE(said({"3-12"}, 26).find("samples 18 to 25 of the order"), std::string::npos);
  EXPECT_NE(said({"20-29"}, 26 + 10).find("samples 18 to 35 of the order"), std::string::npos)
      << "after 10 that were not skipped";
  bad_from(0, 19);
  EXPECT_NE(said({"20-29"}, 26 + 10).find("on rank 0, samples 19 to 30 of the order"), std::string::npos);
}

TEST_F(SkippedStep, AGradientOfNothingIsSaidOnce) {
  ScratchFolder const folder;
  RunLog log(folder.path().string(), config_, 0, {1, 1, 2, true}, 0);
  std::vector<double> const next(static_cast<std::size_t>(statistic_slots(2)), 1);
  auto const said_of = [&](double norm, bool skipped) {
    numbers_.own[kGradNorm] = norm, numbers_.own[kSkipped] = skipped;
    ++numbers_.step;
    CapturedStderr captured;
    log.step(numbers_, next);
    return captured.text().find("the gradient's norm is 0") != std::string::npos;
  };
  EXPECT_FALSE(said_of(0.5, false));
  EXPECT_FALSE(said_of(0, true));
  EXPECT_TRUE(said_of(0, false));
  EXPECT_FALSE(said_of(0, false));
}

}  // namespace
}  // namespace duoflow::launch
