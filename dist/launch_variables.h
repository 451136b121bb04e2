#pragma once
// Who started this process, from its environment variables. In this order, the innermost launcher first:
//   torchrun               TORCHELASTIC_RUN_ID, and the variables of the next but one
//   mpirun, srun --mpi=... OMPI_COMM_WORLD_SIZE, PMIX_RANK, PMI_RANK or PMI_SIZE: rank and size come from MPI
//   anything else          RANK and WORLD_SIZE; MASTER_ADDR and MASTER_PORT, where rank 0 serves; LOCAL_RANK if known
//   srun without MPI       SLURM_STEP_NUM_TASKS and SLURM_PROCID; SLURM_LOCALID. Rank 0 serves on the first host of
//                          SLURM_STEP_NODELIST, on a port made of SLURM_JOB_ID and SLURM_STEP_ID (slurm_port below),
//                          unless MASTER_ADDR or MASTER_PORT say otherwise
// SLURM_NTASKS alone starts nobody: a batch script has it too.

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace duoflow::dist {

// The value of a variable, null if it is not set: std::getenv in a process.
using Environment = std::function<char const*(char const*)>;

enum class Launcher { none, mpi, variables };
Launcher launcher_of(Environment const& environment);

struct LaunchVariables {
  int rank = 0, size = 1;
  int local_rank = -1;  // -1: not said
  std::string host;     // where the store is; "" in a world of one
  int port = 0;
  bool agent_serves = false;  // torchrun's agent holds the store: rank 0 joins it like the others
  std::string prefix;         // of this job's keys in the store
  std::string size_variable;  // where rank, size and the store's address came from, for messages
  std::string rank_variable;
  std::string address;  // "MASTER_ADDR = a, MASTER_PORT = 29500"
};

// For Launcher::variables. Variables that are missing, contradict each other or are no numbers are
// std::invalid_argument with their names and values.
LaunchVariables read_launch_variables(Environment const& environment);

// "node[01-04,07],other3" -> "node01"
std::string first_host(std::string_view node_list);
// 15000 + (7 x job + step) modulo 15000: below the ports that the system hands out, different for the next jobs.
int slurm_port(long job, long step);

}  // namespace duoflow::dist
