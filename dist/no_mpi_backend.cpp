#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include <fmt/format.h>

#include "dist/mpi_session.h"

namespace duoflow::dist {

MpiSession::MpiSession(double) {
  throw std::runtime_error(
      "started by a launcher, but this binary was built without MPI (DUOFLOW_MPI=OFF): start it without the launcher "
      "for one rank, or build it with MPI");
}
MpiSession::~MpiSession() = default;
std::string MpiSession::broadcast_string(std::string const& of_rank_0) const { return of_rank_0; }
std::vector<std::string> MpiSession::gather_strings(std::string const& mine) const { return {mine}; }
void MpiSession::barrier() const {}
RecordSlot* MpiSession::slot(int) const { return nullptr; }

std::string mpi_version() { return "none"; }
std::string mpi_thread_level() { return "none (built without MPI)"; }

void mark_job_broken() {}

void write_message(std::string const& message) { fmt::print(stderr, "duoflow: {}\n", message); }

bool claim_last_word() { return true; }

void abort_all_ranks(int exit_code) { std::_Exit(exit_code); }

std::shared_ptr<Transport> make_mpi_transport(std::shared_ptr<Watchdog>) {
  throw std::logic_error("a transport over MPI without MPI");
}

}  // namespace duoflow::dist
