#pragma once
// A real NCCL group of one rank, shared by all tests of the program.

#include "dist/communicator.h"

namespace duoflow {

dist::Communicator nccl_of_one();  // made on first use, closed by main()

inline constexpr double kMaxSeconds = 60;

// max |a - b| / max |b|
double relative_distance(at::Tensor const& a, at::Tensor const& b);

}  // namespace duoflow
