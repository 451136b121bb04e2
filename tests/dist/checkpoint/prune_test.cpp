#include "dist/checkpoint/folders.h"

#include <filesystem>
#include <fstream>

#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

using Names = std::vector<std::string>;

class PruneTest : public ::testing::Test {
 protected:
  CheckpointWriterOptions options(int keep_last, std::int64_t keep_every = 0) const {
    auto options = options_for(directory_.path());
    options.keep_last = keep_last;
    options.keep_every = keep_every;
    return options;
  }
  void write(std::int64_t step, int keep_last, std::int64_t keep_every = 0) {
    write_checkpoint(Communicator(), options(keep_last, keep_every), small_state(step));
  }
  std::vector<std::int64_t> steps() const {
    std::vector<std::int64_t> found;
    for (StepFolder const& folder : step_folders(directory_.path())) found.push_back(folder.step);
    return found;
  }
  TemporaryFolder directory_;
};

using Steps = std::vector<std::int64_t>;

TEST_F(PruneTest, TheLastOnesAreKept) {
  for (int step = 1; step <= 6; ++step) write(step, 3);
  EXPECT_EQ(steps(), (Steps{6, 5, 4}));
  write(7, 1);
  EXPECT_EQ(steps(), Steps{7});
  EXPECT_EQ(names_in(directory_.path()), (Names{"latest", "step_000000007"}));
}

TEST_F(PruneTest, MultiplesOfKeepEveryStay) {
  for (int step = 0; step <= 60; step += 10) write(step, 2, 20);
  EXPECT_EQ(steps(), (Steps{60, 50, 40, 20, 0}));
}

TEST_F(PruneTest, TheBestStaysUntilAnotherIsBetter) {
  write(1, 1);
  set_best_checkpoint(options(1), 1);
  write(2, 1);
  write(3, 1);
  EXPECT_EQ(steps(), (Steps{3, 1}));
  set_best_checkpoint(options(1), 3);
  EXPECT_EQ(steps(), Steps{3});
  EXPECT_EQ(slurp(directory_ / "best"), "step_000000003\n");
  EXPECT_THROW(set_best_checkpoint(options(1), 1), CheckpointError);
}

TEST_F(PruneTest, DamagedCheckpointsDoNotCountAndDoNotPushGoodOnesOut) {
  write(1, 9);
  write(2, 9);
  write(3, 9);
  std::filesystem::remove(directory_ / "step_000000003/manifest.json");
  write(4, 2);
  EXPECT_EQ(steps(), (Steps{4, 3, 2}));
}

TEST_F(PruneTest, StepsBeyondTheOneWrittenStayAndDoNotCount) {
  write(1, 9);
  write(2, 9);
  write(100, 9);
  write(3, 2);
  EXPECT_EQ(steps(), (Steps{100, 3, 2}));
  EXPECT_EQ(slurp(directory_ / "latest"), "step_000000003\n");
}

// As if it was killed between the rename that makes the third checkpoint exist and the one of `latest`.
TEST_F(PruneTest, WhatAKilledWriterHasNotDoneIsDoneWhenTheRunGoesOn) {
  for (int const step : {1, 2, 3}) write(step, 9);
  std::ofstream(directory_ / "latest") << "step_000000002\n";
  std::ofstream(directory_ / "latest.tmp-0123") << "step_000000003\n";
  std::filesystem::create_directory(directory_ / "step_000000001.tmp-0123");
  finish_interrupted_write(options(2), 3);
  EXPECT_EQ(names_in(directory_.path()), (Names{"latest", "step_000000002", "step_000000003"}));
  EXPECT_EQ(slurp(directory_ / "latest"), "step_000000003\n");
  finish_interrupted_write(options(2), 3);  // nothing is left to do
  EXPECT_EQ(names_in(directory_.path()), (Names{"latest", "step_000000002", "step_000000003"}));
}

TEST_F(PruneTest, NamesOfStepsAreExact) {
  EXPECT_EQ(step_folder_name(0), "step_000000000");
  EXPECT_EQ(step_folder_name(12345678901), "step_12345678901");
  EXPECT_EQ(step_of_folder_name("step_000001000"), 1000);
  EXPECT_EQ(step_of_folder_name("step_12345678901"), 12345678901);
  for (std::string const name : {"", "step_", "step_1", "step_000001000x", "step_0000001000", "step_00000100 ",
                                 "latest", "step_99999999999999999999", "step_000001000.tmp-1"}) {
    EXPECT_FALSE(step_of_folder_name(name)) << name;
  }
}

}  // namespace
}  // namespace duoflow::dist
