// Writing with any number of ranks, reading with any.

#include "dist/checkpoint/checkpoint.h"

#include <mutex>

#include <nlohmann/json.hpp>

#include "dist/thread_backend.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

class CheckpointTest : public ::testing::TestWithParam<int> {
 protected:
  TemporaryFolder folder_;
  std::string directory_ = folder_ / "run/checkpoints";
};

TEST_P(CheckpointTest, WhatAnyNumberOfRanksWroteComesBackInOrder) {
  std::mutex mutex;
  std::vector<std::string> folders;
  run_ranks(GetParam(), [&](Communicator const& communicator) {
    auto const folder = write_checkpoint(communicator, options_for(directory_), small_state(1000));
    auto const found = read_checkpoint(folder);
    std::lock_guard const lock(mutex);
    folders.push_back(folder);
    expect_equal(found, small_state(1000));
  });
  EXPECT_EQ(folders, std::vector<std::string>(static_cast<std::size_t>(GetParam()), directory_ + "/step_000001000"));
  expect_equal(read_checkpoint_model(folders[0]), small_state(1000).model);
  EXPECT_EQ(verify_checkpoint(folders[0]), "");
  EXPECT_EQ(slurp(directory_ + "/latest"), "step_000001000\n");
  EXPECT_EQ(names_in(directory_), (std::vector<std::string>{"latest", "step_000001000"}));
}

TEST_P(CheckpointTest, EveryRankWritesItsShareUnderTheContractsNames) {
  run_ranks(GetParam(), [&](Communicator const& communicator) {
    write_checkpoint(communicator, options_for(directory_), small_state(5));
  });
  auto const manifest = read_checkpoint_manifest(directory_ + "/step_000000005");
  EXPECT_EQ(manifest["world_size"], GetParam());
  EXPECT_EQ(manifest["step"], 5);
  EXPECT_EQ(manifest["counters"]["step"], 5);
  std::set<std::string> expected = {"manifest.json"};
  for (auto const& file : manifest["files"]) expected.insert(file["name"].get<std::string>());
  auto const names = names_in(directory_ + "/step_000000005");
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), expected);
  for (int rank = 0; rank < GetParam(); ++rank) {
    EXPECT_TRUE(expected.contains(fmt::format("state-{:05}-of-{:05}.safetensors", rank, GetParam())));
  }
}

TEST_P(CheckpointTest, AWriteOfTheSameStepReplacesTheFolderAsAWhole) {
  write_alone(directory_, 7);
  spill(directory_ + "/step_000000007/leftover", "x");
  auto changed = small_state(7);
  changed.model[0].tensor = counted(9, {3, 5});
  run_ranks(GetParam(), [&](Communicator const& communicator) {
    write_checkpoint(communicator, options_for(directory_), changed);
  });
  expect_equal(read_checkpoint(directory_ + "/step_000000007"), changed);
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/step_000000007/leftover"));
  EXPECT_EQ(names_in(directory_), (std::vector<std::string>{"latest", "step_000000007"}));
}

INSTANTIATE_TEST_SUITE_P(Ranks, CheckpointTest, ::testing::Values(1, 2, 3, 4));

TEST(CheckpointFolderTest, RanksThatDisagreeAllThrowAndLeaveNothing) {
  TemporaryFolder const folder;
  std::mutex mutex;
  std::vector<std::string> messages;
  run_ranks(3, [&](Communicator const& communicator) {
    auto state = small_state(3);
    if (communicator.rank() == 1) state.model[1].tensor = counted(2, {8});
    auto const message = checkpoint_error([&] { write_checkpoint(communicator, options_for(folder.path()), state); });
    std::lock_guard const lock(mutex);
    messages.push_back(message);
  });
  EXPECT_TRUE(contains(messages[0], "rank 1 brings other tensors")) << messages[0];
  EXPECT_EQ(messages, std::vector<std::string>(3, messages[0]));
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(CheckpointFolderTest, NothingToStoreIsACheckpointToo) {
  TemporaryFolder const folder;
  CheckpointState state;
  state.counters_json = "{}";
  expect_equal(read_checkpoint(write_checkpoint(Communicator(), options_for(folder / "c"), state)), state);
}

TEST(CheckpointFolderTest, ModelIsSplitOverFilesOfAboutTheLimit) {
  TemporaryFolder const folder;
  CheckpointState state;
  state.counters_json = "{}";
  for (int k = 0; k < 6; ++k) state.model.push_back({std::to_string(9 - k), counted(k, {10})});
  auto options = options_for(folder / "c");
  options.max_file_bytes = 100;
  auto const written = write_checkpoint(Communicator(), options, state);
  EXPECT_TRUE(std::filesystem::exists(written + "/model-00003-of-00003.safetensors"));
  expect_equal(read_checkpoint(written), state);
}

TEST(CheckpointFolderTest, LeftoversOfInterruptedWritesAreRemovedByTheNext) {
  TemporaryFolder const folder;
  std::string const directory = folder / "c";
  for (std::string const name : {"step_000000001.tmp-abc", "step_000000002.tmp-abc-old", "mine.tmp-1", "other"}) {
    std::filesystem::create_directories(directory + "/" + name);
    spill(directory + "/" + name + "/x", "x");
  }
  spill(directory + "/latest.tmp-abc", "x");
  write_alone(directory, 3);
  EXPECT_EQ(names_in(directory), (std::vector<std::string>{"latest", "mine.tmp-1", "other", "step_000000003"}));
}

TEST(CheckpointFolderTest, ARequestThatCannotBeMetIsAnErrorBeforeAnythingIsWritten) {
  TemporaryFolder const folder;
  auto const error_of = [&](auto const& change) {
    auto state = small_state(1);
    auto options = options_for(folder / "c");
    change(options, state);
    return checkpoint_error([&] { write_checkpoint(Communicator(), options, state); });
  };
  EXPECT_TRUE(contains(error_of([](auto& options, auto&) { options.keep_last = 0; }), "keep_last 0"));
  EXPECT_TRUE(contains(error_of([](auto&, auto& state) { state.step = -1; }), "step -1"));
  EXPECT_TRUE(contains(error_of([](auto&, auto& state) { state.counters_json = "[1]"; }), "[1]"));
  EXPECT_TRUE(contains(error_of([](auto&, auto& state) { state.counters_json = "{"; }), "not a JSON object"));
  EXPECT_TRUE(contains(error_of([](auto&, auto& state) { state.model[1].name = state.model[0].name; }), "twice"));
  EXPECT_TRUE(contains(error_of([](auto&, auto& state) { state.state[0].tensor = at::Tensor(); }), "undefined"));
  EXPECT_FALSE(std::filesystem::exists(folder / "c"));
}

TEST(CheckpointFolderTest, FingerprintDependsOnNameTypeShapeAndBytesButNotOnOrder) {
  auto const a = NamedTensor{"a", counted(1, {2, 3})};
  auto const b = NamedTensor{"b", counted(2, {4})};
  auto const base = model_fingerprint({a, b});
  EXPECT_EQ(base.size(), 16u);
  EXPECT_EQ(model_fingerprint({b, a}), base);
  EXPECT_EQ(model_fingerprint({{"a", a.tensor.clone().t().contiguous().t()}, b}), base);
  EXPECT_NE(model_fingerprint({{"c", a.tensor}, b}), base);
  EXPECT_NE(model_fingerprint({{"a", a.tensor.view({3, 2})}, b}), base);
  EXPECT_NE(model_fingerprint({{"a", a.tensor.view(at::kInt)}, b}), base);
  EXPECT_NE(model_fingerprint({{"a", a.tensor + 1}, b}), base);
  EXPECT_NE(model_fingerprint({a}), base);
}

}  // namespace
}  // namespace duoflow::dist
