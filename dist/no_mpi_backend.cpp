#include <cstdlib>
#include <stdexcept>

#include "dist/mpi_session.h"

namespace duoflow::dist {

MpiSession::MpiSession() {
  throw std::runtime_error(
      "started by a launcher, but this binary was built without MPI (DUOFLOW_MPI=OFF): start it without the launcher "
      "for one rank, or build it with MPI");
}
MpiSession::~MpiSession() = default;
std::string MpiSession::broadcast_string(std::string const& of_rank_0) const { return of_rank_0; }
void MpiSession::barrier() const {}

std::string mpi_version() { return "none"; }
std::string mpi_thread_level() { return "none (built without MPI)"; }

void mark_job_broken() {}

bool claim_last_word() { return true; }

void abort_all_ranks(int exit_code) { std::_Exit(exit_code); }

std::shared_ptr<Transport> make_mpi_transport(double) {
  throw std::logic_error("a transport over MPI without MPI");
}

}  // namespace duoflow::dist
