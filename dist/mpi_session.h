#pragma once
// MPI of this process from start to end, without MPI's header. Built with or without MPI (no_mpi_backend.cpp: always a
// world of one), so that nothing else asks which it is.

#include <memory>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/watchdog.h"

namespace duoflow::dist {

struct MpiWorld {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks of this host
  int first_on_host = 0;               // the lowest rank of this host
};

// Starts MPI for the life of the object. Construct once per process and only under a launcher.
class MpiSession {
 public:
  // timeout_s: after it, a start or an end of MPI that still waits for other ranks ends this process (exit code 4).
  explicit MpiSession(double timeout_s);
  ~MpiSession();  // MPI_Finalize, unless the job is broken or the stack unwinds: finalizing would wait for the others
  MpiSession(MpiSession const&) = delete;
  MpiSession& operator=(MpiSession const&) = delete;

  MpiWorld const& world() const { return world_; }
  // Host-side, blocking, collective.
  std::string broadcast_string(std::string const& of_rank_0) const;
  std::vector<std::string> gather_strings(std::string const& mine) const;  // every rank's
  void barrier() const;

  // The slot of a rank of this host, in memory that all of them see, until the session ends.
  RecordSlot* slot(int local_rank) const;

 private:
  MpiWorld world_;
  double timeout_s_;
};

std::string mpi_version();  // of the library this process runs with; "none" in a build without MPI

std::string mpi_thread_level();  // that MPI gave this process, by MPI's name; without a launcher "none (...)"

// From now on MPI is not finalized by this process (a collective failed and may still be under way inside MPI).
void mark_job_broken();

// The exit code of a process that ends because of a peer or a deadline.
inline constexpr int peer_error_code = 4;

// "duoflow: MESSAGE" to stderr in one piece, without any lock that another thread may hold.
void write_message(std::string const& message);

// True once per host and job: for the first rank there that asks. Whoever gets it prints why the job ends.
// A signal handler may ask.
bool claim_last_word();

// Ends all ranks; the launcher exits with this code.
[[noreturn]] void abort_all_ranks(int exit_code);

// All ranks of the world over MPI, for CPU tensors and, staged through host memory, for CUDA tensors.
// Collective. Needs a live MpiSession.
std::shared_ptr<Transport> make_mpi_transport(std::shared_ptr<Watchdog> watchdog);

}  // namespace duoflow::dist
