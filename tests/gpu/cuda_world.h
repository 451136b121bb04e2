#pragma once
// A real NCCL group of one rank, shared by all tests of the program, and a device that can be kept busy.

#include "dist/communicator.h"

namespace duoflow {

dist::Communicator nccl_of_one();  // made on first use, closed by main()

inline constexpr double kMaxSeconds = 60;

// max |a - b| / max |b|
double relative_distance(at::Tensor const& a, at::Tensor const& b);

// Keeps the current stream busy for at least so long (devices make at most 2.5 cycles a nanosecond), so that a wrong
// order of streams, and a host that waits, can be seen.
void keep_busy(double seconds);

// LibTorch itself throws at every host synchronisation while this lives.
struct NoHostSynchronisation {
  NoHostSynchronisation();
  ~NoHostSynchronisation();
  NoHostSynchronisation(NoHostSynchronisation const&) = delete;
};

}  // namespace duoflow
