#include "dist/session.h"

#include <cstdlib>
#include <stdexcept>

#include <fmt/format.h>
#include <unistd.h>

#include "dist/launch_variables.h"
#include "dist/mpi_session.h"
#include "dist/store_session.h"

namespace duoflow::dist {
namespace {

char const* environment(char const* name) { return std::getenv(name); }

// An MPI library that does not speak its launcher's protocol starts every rank as a world of its own.
void refuse_lone_ranks(World const& world) {
  if (world.size > 1) return;
  for (char const* const name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    char const* const value = environment(name);
    if (value == nullptr) continue;
    if (std::atoi(value) <= 1) return;
    throw std::invalid_argument(fmt::format(
        "{} = {} says that {} ranks were started, but MPI joined this one with no other (each would train alone into "
        "the "
        "same folder): this MPI does not speak the launcher's protocol; start with mpirun, or with srun --mpi=none",
        name, value, value));
  }
}

}  // namespace

std::unique_ptr<Session> join_job(double timeout_s) {
  switch (launcher_of(environment)) {
    case Launcher::none:
      return nullptr;
    case Launcher::mpi: {
      auto session = make_mpi_session(timeout_s);
      refuse_lone_ranks(session->world());
      return session;
    }
    case Launcher::variables: {
      auto const launch = read_launch_variables(environment);
      return launch.size == 1 ? nullptr : make_store_session(launch, timeout_s);
    }
  }
  throw std::logic_error("a launcher of no kind");
}

void write_message(std::string const& message) {
  std::string const line = fmt::format("duoflow: {}\n", message);
  static_cast<void>(!write(STDERR_FILENO, line.data(), line.size()));
}

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown-host";
}

}  // namespace duoflow::dist
