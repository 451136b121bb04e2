// Starts failing_rank under mpirun, and by environment variables alone, and looks at exit code and messages from
// outside.

#include <sys/wait.h>

#include <cstdio>
#include <stdexcept>
#include <string>

#include <gtest/gtest.h>

namespace {

struct Outcome {
  int exit_code = -1;
  std::string output;

  int messages() const {  // lines of ours, not of mpirun
    int count = 0;
    for (std::size_t at = output.find("duoflow: rank "); at != std::string::npos;
         at = output.find("duoflow: rank ", at + 1)) {
      ++count;
    }
    return count;
  }
  bool says(std::string const& text) const { return output.find(text) != std::string::npos; }
};

Outcome run(std::string const& command) {
  Outcome outcome;
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) {
    throw std::runtime_error("cannot start " + command);
  }
  char text[4096];
  while (std::fgets(text, sizeof(text), pipe) != nullptr) {
    outcome.output += text;
  }
  int const status = pclose(pipe);
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

// How the ranks are started.
class RuntimeTest : public testing::TestWithParam<std::string> {
 protected:
  static Outcome run_on(int ranks, std::string const& behaviour) {
    auto const count = std::to_string(ranks);
    bool const by_mpi = GetParam() == "mpirun";
    return run((by_mpi ? DUOFLOW_MPIEXEC " --allow-run-as-root --oversubscribe -n " + count
                       : DUOFLOW_START_RANKS " " + GetParam() + " " + count) +
               " " DUOFLOW_FAILING_RANK " " + behaviour);
  }
};

TEST_P(RuntimeTest, AGoodJobEndsSilentlyWithZero) {
  for (int ranks : {1, 3}) {
    Outcome const outcome = run_on(ranks, "nothing");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_EQ(outcome.output, "");
  }
}

TEST(LauncherlessTest, TheWorldIsOneRank) {
  EXPECT_EQ(run(DUOFLOW_FAILING_RANK " nothing").exit_code, 0);
  Outcome const outcome = run(DUOFLOW_FAILING_RANK " all-throw");
  EXPECT_EQ(outcome.exit_code, 7);
  EXPECT_EQ(outcome.messages(), 1);
}

TEST_P(RuntimeTest, ARankThatThrowsEndsTheJobWithItsExitCodeAndOneMessage) {
  Outcome const outcome = run_on(3, "last-throws");
  EXPECT_EQ(outcome.exit_code, 7) << outcome.output;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("duoflow: rank 2 on "));
  EXPECT_TRUE(outcome.says("the last rank gives up"));
}

TEST_P(RuntimeTest, RanksThatFailAlikeSpeakOnce) {
  Outcome const outcome = run_on(4, "all-throw");
  EXPECT_EQ(outcome.exit_code, 7) << outcome.output;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("everyone gives up"));
}

TEST_P(RuntimeTest, ADeadlineEndsTheJobNamingTheCollective) {
  Outcome const outcome = run_on(3, "last-hangs");
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("all_reduce #1 of 1000 Float is not complete on rank ")) << outcome.output;
  EXPECT_TRUE(outcome.says("arrived: ranks 0, 1; not arrived: rank 2 on host ")) << outcome.output;
  EXPECT_TRUE(outcome.says("last seen after making the group of all ranks #1 ")) << outcome.output;
  EXPECT_TRUE(outcome.says("(alive, so busy elsewhere)")) << outcome.output;
}

TEST_P(RuntimeTest, AStoppedRankEndsTheJobAndIsNamed) {
  Outcome const outcome = run_on(3, "last-stops");
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("all_reduce #2 (bucket 3) of 1000 Float is not complete on rank ")) << outcome.output;
  EXPECT_TRUE(outcome.says("arrived: ranks 0, 1; not arrived: rank 2 on host ")) << outcome.output;
  EXPECT_TRUE(outcome.says("last seen after all_reduce #1 (bucket 3)")) << outcome.output;
  EXPECT_TRUE(outcome.says("no sign of life for ")) << outcome.output;
}

TEST_P(RuntimeTest, ARankStoppedBeforeItsFirstCollectiveEndsTheJob) {
  Outcome const outcome = run_on(3, "last-stops-before-the-group");
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("making the group of all ranks #1 is not complete on rank ")) << outcome.output;
  EXPECT_TRUE(outcome.says("not arrived: rank 2 on host ")) << outcome.output;
}

TEST(MpirunTest, ARankStoppedBeforeMpiHasStartedEndsTheJob) {
  Outcome const outcome =
      run(DUOFLOW_MPIEXEC " --allow-run-as-root --oversubscribe -n 3 " DUOFLOW_FAILING_RANK " last-stops-before-mpi");
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  EXPECT_TRUE(outcome.says("MPI has not started within 2 s")) << outcome.output;
}

TEST_P(RuntimeTest, AKilledRankEndsTheJob) {
  Outcome const outcome = run_on(3, "last-is-killed");
  bool const by_mpi = GetParam() == "mpirun";  // which ends the others by itself
  EXPECT_EQ(outcome.exit_code, by_mpi ? 137 : 4) << outcome.output;
  if (by_mpi) return;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("rank 2 on host ")) << outcome.output;
  EXPECT_TRUE(outcome.says(" has left all_reduce #2 (bucket 3) of 1000 Float")) << outcome.output;
}

TEST_P(RuntimeTest, RanksThatHangOutsideAnyCollectiveEndByTheDeadlineOfTheStep) {
  for (int ranks : {1, 3}) {
    Outcome const outcome = run_on(ranks, "all-hang-in-a-step");
    EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
    EXPECT_EQ(outcome.messages(), 1) << outcome.output;
    EXPECT_TRUE(outcome.says("step 12 is not complete on rank ")) << outcome.output;
  }
}

TEST_P(RuntimeTest, DeadlinesDoNotRunWhileAllRanksAreStopped) {
  EXPECT_EQ(run_on(2, "all-stop-and-go-on").exit_code, 0);
}

TEST_P(RuntimeTest, AStopSignalOnlySetsAFlag) {
  EXPECT_EQ(run_on(2, "stop-signal").exit_code, 75);
  EXPECT_EQ(run(DUOFLOW_FAILING_RANK " stop-signal").exit_code, 75);
}

INSTANTIATE_TEST_SUITE_P(Launchers, RuntimeTest, testing::Values("mpirun", "plain", "slurm"),
                         [](auto const& launcher) { return launcher.param; });

}  // namespace
