// Starts failing_rank under mpirun and looks at exit code and messages from outside.

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
    for (std::size_t at = output.find("duoflow: rank "); at != std::string::npos; at = output.find("duoflow: rank ", at + 1)) {
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

Outcome run_on(int ranks, std::string const& behaviour) {
  return run(DUOFLOW_MPIEXEC " --allow-run-as-root --oversubscribe -n " + std::to_string(ranks) + " " DUOFLOW_FAILING_RANK " " +
             behaviour);
}

TEST(RuntimeTest, AGoodJobEndsSilentlyWithZero) {
  for (int ranks : {1, 3}) {
    Outcome const outcome = run_on(ranks, "nothing");
    EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
    EXPECT_EQ(outcome.output, "");
  }
}

TEST(RuntimeTest, WithoutALauncherTheWorldIsOneRank) {
  EXPECT_EQ(run(DUOFLOW_FAILING_RANK " nothing").exit_code, 0);
  Outcome const outcome = run(DUOFLOW_FAILING_RANK " all-throw");
  EXPECT_EQ(outcome.exit_code, 7);
  EXPECT_EQ(outcome.messages(), 1);
}

TEST(RuntimeTest, ARankThatThrowsEndsTheJobWithItsExitCodeAndOneMessage) {
  Outcome const outcome = run_on(3, "last-throws");
  EXPECT_EQ(outcome.exit_code, 7) << outcome.output;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("duoflow: rank 2 on "));
  EXPECT_TRUE(outcome.says("the last rank gives up"));
}

TEST(RuntimeTest, RanksThatFailAlikeSpeakOnce) {
  Outcome const outcome = run_on(4, "all-throw");
  EXPECT_EQ(outcome.exit_code, 7) << outcome.output;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("everyone gives up"));
}

TEST(RuntimeTest, ADeadlineEndsTheJobNamingTheCollective) {
  Outcome const outcome = run_on(3, "last-hangs");
  EXPECT_EQ(outcome.exit_code, 4) << outcome.output;
  EXPECT_EQ(outcome.messages(), 1) << outcome.output;
  EXPECT_TRUE(outcome.says("all_reduce #1 of 1000 Float is not complete on rank ")) << outcome.output;
}

TEST(RuntimeTest, AStopSignalOnlySetsAFlag) {
  EXPECT_EQ(run_on(2, "stop-signal").exit_code, 75);
  EXPECT_EQ(run(DUOFLOW_FAILING_RANK " stop-signal").exit_code, 75);
}

}  // namespace
