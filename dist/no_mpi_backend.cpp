#include <stdexcept>

#include "dist/mpi_session.h"

namespace duoflow::dist {

std::unique_ptr<Session> make_mpi_session(double) {
  throw std::runtime_error(
      "started by an MPI launcher, but this binary was built without MPI (DUOFLOW_MPI=OFF): start its ranks with "
      "torchrun or srun --mpi=none, start it without a launcher for one rank, or build it with MPI");
}

std::string mpi_version() { return "none"; }
std::string mpi_thread_level() { return "none (built without MPI)"; }

std::shared_ptr<Transport> make_mpi_transport(Session&, std::shared_ptr<Watchdog>) {
  throw std::logic_error("a transport over MPI without MPI");
}

}  // namespace duoflow::dist
