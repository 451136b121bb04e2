#pragma once
// MPI of this process from start to end, without MPI's header. Built with or without MPI (no_mpi_backend.cpp: always a
// world of one), so that nothing else asks which it is.

#include <memory>
#include <string>

#include "dist/communicator.h"

namespace duoflow::dist {

struct MpiWorld {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks of this host
};

// Starts MPI for the life of the object. Construct once per process and only under a launcher.
class MpiSession {
 public:
  MpiSession();
  ~MpiSession();  // MPI_Finalize, unless the job is broken or the stack unwinds: finalizing would wait for the others
  MpiSession(MpiSession const&) = delete;
  MpiSession& operator=(MpiSession const&) = delete;

  MpiWorld const& world() const { return world_; }
  // Host-side, blocking, collective.
  std::string broadcast_string(std::string const& of_rank_0) const;
  void barrier() const;

 private:
  MpiWorld world_;
};

std::string mpi_version();  // of the library this process runs with; "none" in a build without MPI

std::string mpi_thread_level();  // that MPI gave this process, by MPI's name; without a launcher "none (...)"

// From now on MPI is not finalized by this process (a collective failed and may still be under way inside MPI).
void mark_job_broken();

// True once per host and job: for the first rank there that asks. Whoever gets it prints why the job ends.
// A signal handler may ask.
bool claim_last_word();

// Ends all ranks; the launcher exits with this code.
[[noreturn]] void abort_all_ranks(int exit_code);

// All ranks of the world over MPI, for CPU tensors and, staged through host memory, for CUDA tensors.
// Collective. Needs a live MpiSession.
std::shared_ptr<Transport> make_mpi_transport(double timeout_s);

}  // namespace duoflow::dist
