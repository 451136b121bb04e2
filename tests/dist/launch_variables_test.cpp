#include "dist/launch_variables.h"

#include <map>
#include <stdexcept>

#include <gtest/gtest.h>

namespace duoflow::dist {
namespace {

using Variables = std::map<std::string, std::string>;

Environment in(Variables const& variables) {
  return [&variables](char const* name) {
    auto const found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

Variables const plain{{"RANK", "2"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "alpha"}, {"MASTER_PORT", "29500"}};
Variables const slurm{{"SLURM_JOB_ID", "42"},
                      {"SLURM_STEP_ID", "3"},
                      {"SLURM_PROCID", "5"},
                      {"SLURM_STEP_NUM_TASKS", "6"},
                      {"SLURM_NTASKS", "6"},
                      {"SLURM_LOCALID", "1"},
                      {"SLURM_STEP_NODELIST", "n[08-10],m1"}};

Variables with(Variables variables, Variables const& others) {
  for (auto const& [name, value] : others) variables[name] = value;
  return variables;
}

Variables without(Variables variables, std::string const& name) {
  variables.erase(name);
  return variables;
}

// The words must all be in the error.
void expect_refused(Variables const& variables, std::vector<std::string> const& words) {
  try {
    read_launch_variables(in(variables));
    ADD_FAILURE() << "not refused: " << words.front();
  } catch (std::invalid_argument const& error) {
    for (auto const& word : words) EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
  }
}

TEST(LauncherTest, TheInnermostLauncherCounts) {
  auto const of = [](Variables const& variables) { return launcher_of(in(variables)); };
  EXPECT_EQ(of({}), Launcher::none);
  EXPECT_EQ(of({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}), Launcher::none) << "a batch script";
  EXPECT_EQ(of({{"MASTER_ADDR", "alpha"}, {"LOCAL_RANK", "0"}}), Launcher::none);
  EXPECT_EQ(of(plain), Launcher::variables);
  EXPECT_EQ(of(slurm), Launcher::variables);
  EXPECT_EQ(of(with(slurm, plain)), Launcher::variables);
  for (auto const* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"}) {
    EXPECT_EQ(of({{name, "2"}}), Launcher::mpi) << name;
    EXPECT_EQ(of(with(slurm, {{name, "2"}})), Launcher::mpi) << name;
    EXPECT_EQ(of(with(plain, {{name, "2"}})), Launcher::mpi) << name;
    EXPECT_EQ(of(with(plain, {{name, "2"}, {"TORCHELASTIC_RUN_ID", "none"}})), Launcher::variables) << name;
  }
}

TEST(LaunchVariablesTest, PlainOnesAreTakenAsTheyAre) {
  auto const launch = read_launch_variables(in(plain));
  EXPECT_EQ(launch.rank, 2);
  EXPECT_EQ(launch.size, 4);
  EXPECT_EQ(launch.local_rank, -1);
  EXPECT_EQ(launch.host, "alpha");
  EXPECT_EQ(launch.port, 29500);
  EXPECT_FALSE(launch.agent_serves);
  EXPECT_EQ(launch.address, "MASTER_ADDR = alpha, MASTER_PORT = 29500");
  auto const local = read_launch_variables(in(with(plain, {{"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "2"}})));
  EXPECT_EQ(local.local_rank, 1);
}

TEST(LaunchVariablesTest, TorchrunsAgentServesAndEveryRestartHasKeysOfItsOwn) {
  auto const variables = with(plain, {{"TORCHELASTIC_RUN_ID", "job7"},
                                      {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                      {"TORCHELASTIC_RESTART_COUNT", "0"},
                                      {"LOCAL_RANK", "0"},
                                      {"LOCAL_WORLD_SIZE", "2"}});
  auto const first = read_launch_variables(in(variables));
  auto const second = read_launch_variables(in(with(variables, {{"TORCHELASTIC_RESTART_COUNT", "1"}})));
  auto const other = read_launch_variables(in(with(variables, {{"TORCHELASTIC_RUN_ID", "job8"}})));
  EXPECT_TRUE(first.agent_serves);
  EXPECT_NE(first.prefix, second.prefix);
  EXPECT_NE(first.prefix, other.prefix);
  EXPECT_FALSE(read_launch_variables(in(with(variables, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}}))).agent_serves);
}

TEST(LaunchVariablesTest, SlurmsNameTheHostAndMakeThePort) {
  auto const launch = read_launch_variables(in(slurm));
  EXPECT_EQ(launch.rank, 5);
  EXPECT_EQ(launch.size, 6);
  EXPECT_EQ(launch.local_rank, 1);
  EXPECT_EQ(launch.host, "n08");
  EXPECT_EQ(launch.port, 15000 + 7 * 42 + 3);
  EXPECT_EQ(launch.address, "first host of SLURM_STEP_NODELIST = n08, port made of SLURM_JOB_ID = 15297");
  auto const given = read_launch_variables(in(with(slurm, {{"MASTER_ADDR", "beta"}, {"MASTER_PORT", "4000"}})));
  EXPECT_EQ(given.address, "MASTER_ADDR = beta, MASTER_PORT = 4000");
  EXPECT_EQ(given.host, "beta");
  EXPECT_EQ(given.port, 4000);
}

TEST(LaunchVariablesTest, PlainOnesComeBeforeSlurms) {
  auto const launch = read_launch_variables(in(with(slurm, plain)));
  EXPECT_EQ(launch.rank, 2);
  EXPECT_EQ(launch.host, "alpha");
}

TEST(LaunchVariablesTest, AWorldOfOneNeedsNoAddress) {
  EXPECT_EQ(read_launch_variables(in({{"RANK", "0"}, {"WORLD_SIZE", "1"}})).size, 1);
  EXPECT_EQ(read_launch_variables(in({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}})).size, 1);
}

TEST(LaunchVariablesTest, WhatIsMissingIsNamedWithWhatIsThere) {
  expect_refused(without(plain, "WORLD_SIZE"), {"RANK = 2", "WORLD_SIZE is not", "unset RANK"});
  expect_refused(without(plain, "RANK"), {"WORLD_SIZE = 4", "RANK is not", "unset WORLD_SIZE"});
  expect_refused(without(plain, "MASTER_ADDR"), {"RANK = 2 and WORLD_SIZE = 4", "MASTER_ADDR is not"});
  expect_refused(without(plain, "MASTER_PORT"), {"RANK = 2 and WORLD_SIZE = 4", "MASTER_PORT is not"});
  expect_refused(without(slurm, "SLURM_PROCID"), {"SLURM_STEP_NUM_TASKS = 6", "SLURM_PROCID is not"});
  expect_refused(without(slurm, "SLURM_STEP_NODELIST"), {"SLURM_STEP_NUM_TASKS = 6", "set MASTER_ADDR"});
}

TEST(LaunchVariablesTest, WhatCannotBeIsNamedWithBothValues) {
  expect_refused(with(plain, {{"RANK", "4"}}), {"RANK = 4 and WORLD_SIZE = 4"});
  expect_refused(with(plain, {{"WORLD_SIZE", "0"}}), {"RANK = 2 and WORLD_SIZE = 0"});
  expect_refused(with(slurm, {{"SLURM_PROCID", "7"}}), {"SLURM_PROCID = 7 and SLURM_STEP_NUM_TASKS = 6"});
  expect_refused(with(plain, {{"LOCAL_RANK", "2"}, {"LOCAL_WORLD_SIZE", "2"}}),
                 {"LOCAL_RANK = 2", "LOCAL_WORLD_SIZE = 2"});
  for (auto const* value : {"", "two", "2x", "-1", "1.5", "99999999999"}) {
    expect_refused(with(plain, {{"RANK", value}}), {"RANK = \"" + std::string(value) + "\""});
  }
  for (auto const* port : {"0", "65536"})
    expect_refused(with(plain, {{"MASTER_PORT", port}}), {"MASTER_PORT = ", port});
}

TEST(FirstHostTest, BracketsAreOpened) {
  for (auto const& [list, host] : Variables{{"node1", "node1"},
                                            {"node1,node2", "node1"},
                                            {"node[01-04,07],other3", "node01"},
                                            {"node[7,9-11]", "node7"},
                                            {"rack[2-3]n[05,06]", "rack2n05"},
                                            {"gpu-[1-2]-ib,cpu", "gpu-1-ib"},
                                            {"", ""}}) {
    EXPECT_EQ(first_host(list), host);
  }
}

TEST(SlurmPortTest, NeighboursHaveOthersAndAllAreBelowTheSystems) {
  EXPECT_EQ(slurm_port(0, 0), 15000);
  EXPECT_EQ(slurm_port(1, 2), 15009);
  EXPECT_EQ(slurm_port(2142, 6), 15000);
  for (long job = 1; job < 20000; ++job) {
    ASSERT_GE(slurm_port(job, 0), 15000);
    ASSERT_LT(slurm_port(job, 0), 30000);
    ASSERT_NE(slurm_port(job, 0), slurm_port(job + 1, 0));
  }
}

}  // namespace
}  // namespace duoflow::dist
