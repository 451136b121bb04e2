#pragma once
// Session: how the ranks of a job find each other and meet outside any group. One per process, from before the first
// collective to the end. Two kinds: over MPI (mpi_session.h), and over a key-value store whose address the launcher's
// environment variables give (store_session.h).

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dist/communicator.h"
#include "dist/watchdog.h"

namespace duoflow::dist {

class KeyStore;

struct World {
  int rank = 0, size = 1;
  int local_rank = -1;  // which device of its host is this rank's; -1: the launcher does not say
};

class Session {
 public:
  // Ends the session in step with the other ranks, unless the job is broken or the stack unwinds: they may never come.
  virtual ~Session() = default;
  Session(Session const&) = delete;
  Session& operator=(Session const&) = delete;

  World const& world() const { return world_; }
  virtual std::string address() const = 0;  // of this rank, for ranks of other hosts: a name or a number

  // Host-side, blocking, collective; for start-up and the end. PeerError when the others do not come within the
  // session's own deadline, where the session can tell (MPI cannot).
  virtual std::string broadcast_string(std::string const& of_rank_0) = 0;
  virtual std::vector<std::string> gather_strings(std::string const& mine) = 0;  // every rank's
  virtual void barrier() = 0;

  // All ranks, for CPU tensors and, staged through host memory, for CUDA tensors. Collective. Session and watchdog
  // must outlive its close().
  virtual std::shared_ptr<Transport> make_host_transport(std::shared_ptr<Watchdog> watchdog) = 0;
  // Keys that all ranks see, for NCCL to meet by; null: there are none yet.
  virtual std::shared_ptr<KeyStore> key_store() { return nullptr; }

  // Ends this process, and with it the job if a launcher listens: others than this rank may have to see for themselves
  // (ends_all_ranks() is false) that the job has ended.
  [[noreturn]] virtual void abort(int exit_code) = 0;
  virtual bool ends_all_ranks() const = 0;

  // The deadline of later meetings, and of the end. Behind the watchdog's, which says more.
  void set_timeout(double seconds) { timeout_s_ = seconds; }

  // A collective failed and may still be under way: the session is not ended in step with the others. Any thread.
  void mark_broken() { broken_ = true; }
  bool is_broken() const { return broken_; }

 protected:
  explicit Session(double timeout_s) : timeout_s_(timeout_s) {}
  World world_;
  double timeout_s_;

 private:
  std::atomic<bool> broken_{false};
};

// The session that the environment of this process tells of (launch_variables.h has the order); null: the world is
// this process. Collective. Wrong variables are std::invalid_argument, ranks that do not come within timeout_s
// PeerError; where MPI itself waits for them, the process ends with peer_error_code.
std::unique_ptr<Session> join_job(double timeout_s);

// The exit code of a process that ends because of a peer or a deadline.
inline constexpr int peer_error_code = 4;

// "duoflow: MESSAGE" to stderr in one piece, without any lock that another thread may hold.
void write_message(std::string const& message);

std::string host_name();  // of this host; "unknown-host" if it has none

}  // namespace duoflow::dist
