#include <mutex>

#include "dist/thread_backend.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

void damage(std::string const& folder) {
  std::filesystem::resize_file(folder + "/model-00001-of-00001.safetensors", 70);
}

class ChoiceTest : public ::testing::Test {
 protected:
  std::string newest() {
    rejected_.clear();
    return newest_valid_checkpoint(Communicator(), directory_, &rejected_);
  }
  TemporaryFolder folder_;
  std::string directory_ = folder_ / "run/checkpoints";
  std::vector<CheckpointProblem> rejected_;
};

TEST_F(ChoiceTest, NoFolderOrAnEmptyOneHasNone) {
  EXPECT_EQ(newest(), "");
  std::filesystem::create_directories(directory_);
  EXPECT_EQ(newest(), "");
  EXPECT_TRUE(rejected_.empty());
}

TEST_F(ChoiceTest, NewestValidIsTakenAndTheRejectedAreReported) {
  write_alone(directory_, 9);
  write_alone(directory_, 10);
  write_alone(directory_, 200);
  EXPECT_EQ(newest(), directory_ + "/step_000000200");
  EXPECT_TRUE(rejected_.empty());
  damage(directory_ + "/step_000000200");
  std::filesystem::remove(directory_ + "/step_000000010/manifest.json");
  EXPECT_EQ(newest(), directory_ + "/step_000000009");
  ASSERT_EQ(rejected_.size(), 2u);
  EXPECT_EQ(rejected_[0].folder, directory_ + "/step_000000200");
  EXPECT_TRUE(contains(rejected_[0].problem, "70 found (cut short)"));
  EXPECT_EQ(rejected_[1].folder, directory_ + "/step_000000010");
  damage(directory_ + "/step_000000009");
  EXPECT_EQ(newest(), "");
  EXPECT_EQ(rejected_.size(), 3u);
}

TEST_F(ChoiceTest, LatestIsNotTrusted) {
  write_alone(directory_, 1);
  write_alone(directory_, 2);
  spill(directory_ + "/latest", "step_000000001\n");
  EXPECT_EQ(newest(), directory_ + "/step_000000002");
  spill(directory_ + "/latest", "step_000000077\n");
  EXPECT_EQ(newest(), directory_ + "/step_000000002");
  ASSERT_EQ(rejected_.size(), 1u);
  EXPECT_EQ(rejected_[0].folder, directory_ + "/step_000000077");
  std::filesystem::remove(directory_ + "/latest");
  EXPECT_EQ(newest(), directory_ + "/step_000000002");
}

TEST_F(ChoiceTest, LatestAndBestNameAFolderOfTheirOwnOrNothing) {
  write_alone(directory_, 1);
  write_alone(folder_ / "elsewhere", 2);
  for (std::string const name : {"../../elsewhere/step_000000002", "/", "..",
                                 "step_000000001/../../../elsewhere/step_000000002", "", "step_1"}) {
    spill(directory_ + "/latest", name + "\n");
    spill(directory_ + "/best", name + "\n");
    EXPECT_EQ(newest(), directory_ + "/step_000000001") << name;
    ASSERT_EQ(rejected_.size(), 1u) << name;
    EXPECT_TRUE(contains(rejected_[0].problem, "is not the name of a step's folder")) << rejected_[0].problem;
    for (std::string const pointer : {"/latest", "/best"}) {
      EXPECT_TRUE(contains(checkpoint_error([&] { resolve_checkpoint(directory_ + pointer); }), "is not the name"))
          << name;
    }
  }
  EXPECT_EQ(set_checkpoints_aside(directory_, 1), "") << "and no harm is done elsewhere";
  EXPECT_EQ(verify_checkpoint(folder_ / "elsewhere/step_000000002"), "");
}

TEST_F(ChoiceTest, OnlyFinalNamesCount) {
  write_alone(directory_, 1);
  auto const copy = [&](std::string const& name) {
    std::filesystem::copy(directory_ + "/step_000000001", directory_ + "/" + name);
  };
  copy("step_000000002.tmp-abc");
  copy("step_3");
  copy("step_000000004x");
  copy("step_-00000005");
  EXPECT_EQ(newest(), directory_ + "/step_000000001");
  copy("step_1000000000");
  EXPECT_EQ(newest(), directory_ + "/step_1000000000");
}

TEST_F(ChoiceTest, AllRanksGetTheSameAnswer) {
  write_alone(directory_, 1);
  write_alone(directory_, 2);
  damage(directory_ + "/step_000000002");
  std::mutex mutex;
  int agreed = 0;
  run_ranks(3, [&](Communicator const& communicator) {
    std::vector<CheckpointProblem> rejected;
    auto const found = newest_valid_checkpoint(communicator, directory_, &rejected);
    std::lock_guard const lock(mutex);
    agreed += found == directory_ + "/step_000000001" && rejected.size() == 1 ? 1 : 0;
  });
  EXPECT_EQ(agreed, 3);
}

TEST_F(ChoiceTest, APathMeansACheckpointARunOrItsCheckpointsFolder) {
  write_alone(directory_, 1);
  write_alone(directory_, 2);
  EXPECT_EQ(resolve_checkpoint(directory_ + "/step_000000001"), directory_ + "/step_000000001");
  EXPECT_EQ(resolve_checkpoint(directory_), directory_ + "/step_000000002");
  EXPECT_EQ(resolve_checkpoint(folder_ / "run"), directory_ + "/step_000000002");
  damage(directory_ + "/step_000000002");
  EXPECT_EQ(resolve_checkpoint(folder_ / "run"), directory_ + "/step_000000001");
}

TEST_F(ChoiceTest, CheckpointsOfAnAbandonedBranchAreSetAsideWhole) {
  EXPECT_EQ(set_checkpoints_aside(directory_, -1), "");
  for (int step : {1, 2, 3}) write_alone(directory_, step);
  EXPECT_EQ(set_checkpoints_aside(directory_, 3), "");
  EXPECT_EQ(set_checkpoints_aside(directory_, 1), directory_ + ".old-1");
  EXPECT_EQ(newest(), directory_ + "/step_000000001");
  EXPECT_TRUE(rejected_.empty()) << "latest follows";
  EXPECT_EQ(verify_checkpoint(directory_ + ".old-1/step_000000003"), "");
  write_alone(directory_, 2);
  EXPECT_EQ(set_checkpoints_aside(directory_, -1), directory_ + ".old-2");
  EXPECT_EQ(newest(), "");
  EXPECT_TRUE(rejected_.empty());
  EXPECT_EQ(verify_checkpoint(directory_ + ".old-2/step_000000001"), "");
}

TEST_F(ChoiceTest, APathWithoutACheckpointIsAnErrorThatSaysWhatWasLookedFor) {
  auto const error_of = [](std::string const& path) { return checkpoint_error([&] { resolve_checkpoint(path); }); };
  EXPECT_TRUE(contains(error_of(folder_ / "none"), "none/manifest.json"));
  write_alone(directory_, 1);
  damage(directory_ + "/step_000000001");
  auto const message = error_of(folder_ / "run");
  EXPECT_TRUE(contains(message, "run/checkpoints") && contains(message, "rejected") && contains(message, "cut short"))
      << message;
}

}  // namespace
}  // namespace duoflow::dist
