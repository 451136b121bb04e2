// Checkpoints written beside the training: what they hold, when they appear, and what happens when a write fails.

#include "dist/checkpoint/background_writer.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>

#include "dist/checkpoint/file_io.h"
#include "dist/thread_backend.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

struct Hooked {
  explicit Hooked(FaultHook hook) { set_fault_hook(std::move(hook)); }
  ~Hooked() { set_fault_hook(nullptr); }
};

// One step's exchange.
SaveReport summed(Communicator const& communicator, SaveReport const& mine) {
  auto sums = at::tensor({mine.number, mine.written, mine.published, mine.failed}, at::kDouble);
  all_reduce(communicator, sums, ReduceOp::sum).wait();
  auto const* values = sums.const_data_ptr<double>();
  return {values[0], values[1], values[2], values[3]};
}

// Steps until there is an outcome.
SaveOutcome step_until_outcome(Communicator const& communicator, BackgroundWriter& writer) {
  for (;;) {
    if (auto const outcome = writer.take(summed(communicator, writer.report()))) return *outcome;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

CheckpointState cloned(CheckpointState state) {
  for (auto* list : {&state.model, &state.state})
    for (auto& named : *list) named.tensor = named.tensor.clone();
  return state;
}

class BackgroundWriterTest : public ::testing::TestWithParam<int> {
 protected:
  std::string directory() const { return folder_ / "run/checkpoints"; }
  TemporaryFolder folder_;
};

TEST_P(BackgroundWriterTest, ACheckpointHoldsWhatWasThereAtItsBegin) {
  std::mutex mutex;
  run_ranks(GetParam(), [&](Communicator const& communicator) {
    BackgroundWriter writer(communicator, options_for(directory()));
    for (int step = 1; step <= 3; ++step) {
      auto state = cloned(small_state(step));
      writer.begin(state);
      EXPECT_TRUE(writer.under_way());
      for (auto* list : {&state.model, &state.state})
        for (auto& named : *list) named.tensor.zero_();  // training goes on
      auto const outcome = step_until_outcome(communicator, writer);
      EXPECT_FALSE(writer.under_way());
      std::lock_guard const lock(mutex);
      EXPECT_EQ(outcome.failure, "");
      EXPECT_EQ(outcome.step, step);
      expect_equal(read_checkpoint(outcome.folder), small_state(step));
    }
  });
  EXPECT_EQ(names_in(directory()),
            (std::vector<std::string>{"latest", "step_000000001", "step_000000002", "step_000000003"}));
}

TEST_P(BackgroundWriterTest, NothingHasItsNameUntilEveryRankHasWritten) {
  std::atomic<bool> held{true};
  std::string const last = fmt::format("state-{:05}-of-{:05}", GetParam() - 1, GetParam());
  Hooked const hook([&](FileOperation, std::string const& path) {
    while (contains(path, last) && held) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return 0;
  });
  run_ranks(GetParam(), [&](Communicator const& communicator) {
    BackgroundWriter writer(communicator, options_for(directory()));
    writer.begin(small_state(1));
    for (int step = 0; step < 20; ++step) {
      EXPECT_FALSE(writer.take(summed(communicator, writer.report())).has_value());
      EXPECT_FALSE(std::filesystem::exists(directory() + "/step_000000001"));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    barrier(communicator);
    held = false;
    EXPECT_EQ(step_until_outcome(communicator, writer).failure, "");
  });
  EXPECT_EQ(verify_checkpoint(directory() + "/step_000000001"), "");
}

TEST_P(BackgroundWriterTest, SumsThatArriveLateTellNothingOfTheNextCheckpoint) {
  run_ranks(GetParam(), [&](Communicator const& communicator) {
    BackgroundWriter writer(communicator, options_for(directory()));
    writer.begin(small_state(1));
    step_until_outcome(communicator, writer);
    auto const size = static_cast<double>(communicator.size());
    writer.begin(small_state(2));
    for (auto const& late : {SaveReport{1, size, 0, 0}, SaveReport{1, 0, 1, 0}, SaveReport{1, 0, 0, 1}, SaveReport{}})
      EXPECT_FALSE(writer.take(late).has_value());
    EXPECT_TRUE(writer.under_way());
    EXPECT_EQ(writer.finish().step, 2);
  });
}

TEST_P(BackgroundWriterTest, FinishEndsWhatIsUnderWayAtAnyStage) {
  run_ranks(GetParam(), [&](Communicator const& communicator) {
    BackgroundWriter writer(communicator, options_for(directory()));
    for (int steps = 0; steps < 4; ++steps) {
      writer.begin(small_state(steps));
      bool ended = false;
      for (int step = 0; step < steps && !ended; ++step)
        ended = writer.take(summed(communicator, writer.report())).has_value();
      if (!ended) {
        EXPECT_EQ(writer.finish().failure, "");
      }
      EXPECT_THROW(writer.finish(), std::logic_error);
    }
  });
  EXPECT_EQ(verify_checkpoint(directory() + "/step_000000003"), "");
}

TEST_P(BackgroundWriterTest, AWriteThatFailsIsNamedOnAllRanksAndTheNextSucceeds) {
  int failed = 0, complete = 0;
  for (int point = 0;; ++point) {
    TemporaryFolder const folder;
    write_alone(folder.path(), 1);
    std::atomic<int> count{0};
    std::atomic<bool> armed{true};
    std::vector<std::string> failures(static_cast<std::size_t>(GetParam()));
    Hooked const hook([&](FileOperation, std::string const&) { return armed && count++ == point ? EIO : 0; });
    run_ranks(GetParam(), [&](Communicator const& communicator) {
      BackgroundWriter writer(communicator, options_for(folder.path()));
      writer.begin(small_state(2));
      failures[static_cast<std::size_t>(communicator.rank())] = step_until_outcome(communicator, writer).failure;
      barrier(communicator);
      if (communicator.rank() == 0) {
        armed = false;
        auto const found = newest_valid_checkpoint(Communicator(), folder.path(), nullptr);
        bool const there = contains(failures[0], "complete on disk") || failures[0].empty();
        EXPECT_EQ(found, folder.path() + (there ? "/step_000000002" : "/step_000000001")) << failures[0];
      }
      barrier(communicator);
      writer.begin(small_state(3));
      EXPECT_EQ(step_until_outcome(communicator, writer).failure, "");
    });
    for (auto const& failure : failures) ASSERT_EQ(failure, failures[0]) << point;
    EXPECT_EQ(verify_checkpoint(folder.path() + "/step_000000003"), "");
    for (auto const& name : names_in(folder.path())) EXPECT_FALSE(contains(name, ".tmp-")) << point << ": " << name;
    if (failures[0].empty()) break;
    EXPECT_TRUE(contains(failures[0], "Input/output error") && contains(failures[0], "rank ")) << failures[0];
    ++failed;
    complete += contains(failures[0], "complete on disk") ? 1 : 0;
  }
  EXPECT_GT(failed, 15);
  EXPECT_GE(complete, 3);
}

INSTANTIATE_TEST_SUITE_P(Ranks, BackgroundWriterTest, ::testing::Values(1, 2, 3, 4));

TEST(BackgroundWriterAloneTest, AProcessThatEndsAtAnyOperationLeavesAValidCheckpoint) {
  int ended = 0;
  for (int point = 0;; ++point) {
    TemporaryFolder const folder;
    write_alone(folder.path(), 1);
    pid_t const child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      std::atomic<int> count{0};
      set_fault_hook([&](FileOperation, std::string const&) {
        if (count++ == point) ::_exit(9);
        return 0;
      });
      BackgroundWriter writer({}, options_for(folder.path()));
      writer.begin(small_state(2));
      step_until_outcome({}, writer);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    auto const found = read_checkpoint(newest_valid_checkpoint(Communicator(), folder.path(), nullptr));
    expect_equal(found, small_state(found.step));
    if (WEXITSTATUS(status) == 0) {
      EXPECT_EQ(found.step, 2);
      break;
    }
    ++ended;
    write_alone(folder.path(), 3);
    for (auto const& name : names_in(folder.path())) EXPECT_FALSE(contains(name, ".tmp-")) << point << ": " << name;
  }
  EXPECT_GT(ended, 15);
}

TEST(BackgroundWriterAloneTest, ASecondBeginWhileOneIsUnderWayIsAnErrorOfTheCaller) {
  TemporaryFolder const folder;
  BackgroundWriter writer({}, options_for(folder.path()));
  writer.begin(small_state(1));
  EXPECT_THROW(writer.begin(small_state(2)), std::logic_error);
  EXPECT_EQ(writer.finish().step, 1);
}

TEST(BackgroundWriterAloneTest, AStateThatCannotBeWrittenFailsLikeADisk) {
  TemporaryFolder const folder;
  BackgroundWriter writer({}, options_for(folder / "c"));
  auto state = small_state(1);
  state.state[0].tensor = at::Tensor();
  writer.begin(state);
  EXPECT_TRUE(contains(step_until_outcome({}, writer).failure, "undefined"));
  EXPECT_FALSE(std::filesystem::exists(folder / "c"));
  writer.begin(small_state(1));
  EXPECT_EQ(step_until_outcome({}, writer).failure, "");
}

TEST(BackgroundWriterAloneTest, AWriterThatIsDroppedLeavesNothingUnderAFinalName) {
  TemporaryFolder const folder;
  {
    BackgroundWriter writer({}, options_for(folder.path()));
    writer.begin(small_state(1));
  }
  for (auto const& name : names_in(folder.path())) EXPECT_TRUE(contains(name, ".tmp-")) << name;
  write_alone(folder.path(), 2);
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"latest", "step_000000002"}));
}

}  // namespace
}  // namespace duoflow::dist
