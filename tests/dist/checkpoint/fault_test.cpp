// The write is made to fail, and the process to end, at every single file operation.

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "dist/checkpoint/file_io.h"
#include "dist/thread_backend.h"
#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

class HookGuard {
 public:
  explicit HookGuard(FaultHook hook) { set_fault_hook(std::move(hook)); }
  ~HookGuard() { set_fault_hook(nullptr); }
  HookGuard(HookGuard const&) = delete;
};

CheckpointWriterOptions keep_one(std::string const& directory) {
  auto options = options_for(directory);
  options.keep_last = 1;
  return options;
}

CheckpointState changed_state(std::int64_t step) {
  auto state = small_state(step);
  state.model[0].tensor = counted(8, {3, 5});
  return state;
}

// Writes with `ranks` ranks; every rank's error, "" for success.
std::vector<std::string> write_with_ranks(int ranks, std::string const& directory, CheckpointState const& state) {
  std::vector<std::string> errors(static_cast<std::size_t>(ranks));
  run_ranks(ranks, [&](Communicator const& communicator) {
    errors[static_cast<std::size_t>(communicator.rank())] =
        checkpoint_error([&] { write_checkpoint(communicator, keep_one(directory), state); });
  });
  return errors;
}

bool same(CheckpointState const& a, CheckpointState const& b) {
  return a.step == b.step && at::equal(a.model[0].tensor, b.model[0].tensor);
}

// After trouble while `next` was written over `before`: the newest valid checkpoint is one of the two, and as a whole.
bool holds_one_of(std::string const& directory, CheckpointState const& before, CheckpointState const& next) {
  auto const folder = newest_valid_checkpoint(Communicator(), directory, nullptr);
  if (folder.empty()) return false;
  auto const found = read_checkpoint(folder);
  return same(found, before) || same(found, next);
}

class FaultTest : public ::testing::TestWithParam<std::int64_t> {
};  // the step written over step 1: another, or 1 again

TEST_P(FaultTest, AnOperationThatFailsFailsOnAllRanksAndKeepsWhatWasThere) {
  auto const before = small_state(1);
  auto const next = changed_state(GetParam());
  int committed = 0, failed = 0;
  for (int point = 0;; ++point) {
    TemporaryFolder const folder;
    write_alone(folder.path(), 1);
    std::atomic<int> count{0};
    std::vector<std::string> errors;
    {
      HookGuard const guard([&](FileOperation, std::string const&) { return count++ == point ? ENOSPC : 0; });
      errors = write_with_ranks(2, folder.path(), next);
    }
    if (count <= point) {
      EXPECT_EQ(errors[0], "");
      break;
    }
    ++failed;
    ASSERT_TRUE(contains(errors[0], "No space left on device")) << point << ": " << errors[0];
    ASSERT_EQ(errors[0], errors[1]);
    bool const complete = contains(errors[0], "complete on disk");
    committed += complete ? 1 : 0;
    auto const found = read_checkpoint(newest_valid_checkpoint(Communicator(), folder.path(), nullptr));
    ASSERT_TRUE(same(found, complete ? next : before)) << point << ": " << errors[0];
    if (!complete) {
      ASSERT_EQ(names_in(folder.path()), (std::vector<std::string>{"latest", "step_000000001"})) << errors[0];
    }
    ASSERT_EQ(write_with_ranks(2, folder.path(), next), (std::vector<std::string>{"", ""}));
  }
  EXPECT_GT(failed, 20);
  EXPECT_GT(committed, 3);
}

TEST_P(FaultTest, AProcessThatEndsAtAnyOperationLeavesAValidCheckpoint) {
  auto const before = small_state(1);
  auto const next = changed_state(GetParam());
  int ended = 0;
  for (int point = 0;; ++point) {
    TemporaryFolder const folder;
    write_alone(folder.path(), 1);
    pid_t const child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      int count = 0;
      set_fault_hook([&](FileOperation, std::string const&) {
        if (count++ == point) ::_exit(9);
        return 0;
      });
      write_checkpoint(Communicator(), keep_one(folder.path()), next);
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(holds_one_of(folder.path(), before, next)) << point;
    if (WEXITSTATUS(status) == 0) break;
    ++ended;
    EXPECT_EQ(write_with_ranks(1, folder.path(), next), std::vector<std::string>{""});
    auto const names = names_in(folder.path());
    EXPECT_EQ(names.size(), 2u) << point;  // latest and one step
  }
  EXPECT_GT(ended, 20);
}

INSTANTIATE_TEST_SUITE_P(Steps, FaultTest, ::testing::Values(2, 1));

TEST(FaultyRankTest, TheFailingRankIsNamedOnAllRanks) {
  TemporaryFolder const folder;
  std::vector<std::string> errors;
  {
    HookGuard const guard(
        [](FileOperation, std::string const& path) { return contains(path, "state-00002-of-00003") ? EDQUOT : 0; });
    errors = write_with_ranks(3, folder / "c", small_state(1));
  }
  EXPECT_TRUE(contains(errors[0], "not written, rank 2 on ")) << errors[0];
  EXPECT_TRUE(contains(errors[0], "Disk quota exceeded"));
  EXPECT_EQ(errors, std::vector<std::string>(3, errors[0]));
  EXPECT_TRUE(names_in(folder / "c").empty());
}

TEST(FaultyRankTest, ATargetThatIsAFileIsAnErrorOnAllRanks) {
  TemporaryFolder const folder;
  spill(folder / "run", "a file");
  auto const errors = write_with_ranks(2, folder / "run/checkpoints", small_state(1));
  EXPECT_TRUE(contains(errors[0], "rank 0 on ") && contains(errors[0], "cannot make folder")) << errors[0];
  EXPECT_EQ(errors[1], errors[0]);
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"run"});
}

TEST(FaultyRankTest, SeveralFailingRanksAreCounted) {
  TemporaryFolder const folder;
  std::vector<std::string> errors;
  {
    HookGuard const guard([](FileOperation, std::string const& path) { return contains(path, "state-") ? EIO : 0; });
    errors = write_with_ranks(3, folder.path(), small_state(1));
  }
  EXPECT_TRUE(contains(errors[2], "rank 0 on ") && contains(errors[2], "and 2 more ranks failed")) << errors[2];
}

}  // namespace
}  // namespace duoflow::dist
