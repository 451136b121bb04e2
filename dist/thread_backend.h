#pragma once
// Ranks as threads of one process: what tests use instead of mpirun, and a way to try several ranks in a debugger.
//
// Results are deterministic: sums are taken in rank order, whatever the order in which the threads arrive.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dist/communicator.h"

namespace duoflow::dist {

// The point where the threads of one group meet.
class ThreadGroup {
 public:
  ThreadGroup(int size, double timeout_s);
  // The group as this rank sees it; to be used by one thread at a time.
  Communicator communicator(int rank) const;
  // Releases everyone who waits, now and later, with a PeerError that names `rank` and the reason.
  void fail(int rank, std::string const& reason);

 private:
  friend class ThreadBackend;
  struct State;
  std::shared_ptr<State> state_;
};

// Runs body once per rank, each in an own thread, and returns when all have ended. If a body throws, the other ranks
// get PeerError from their collectives, and the first exception is thrown here with "rank N: " before its message
// (PeerError and CheckpointError keep their type, anything else becomes std::runtime_error).
// A rank that returns while others wait for it counts as failed.
void run_ranks(int size, std::function<void(Communicator const&)> const& body, double timeout_s = 60);

}  // namespace duoflow::dist
