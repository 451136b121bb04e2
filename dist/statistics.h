#pragma once
// StatisticsExchange: a few sums of the step, all-reduced while the backward runs.
//
// The vector is fp64 on the device of the tensors. Slots are the caller's business (this folder knows no loss).
// start() packs and launches; await() makes the current stream wait. Between the two the caller keeps computing.

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "dist/communicator.h"

namespace duoflow::dist {

class StatisticsExchange {
 public:
  StatisticsExchange(Communicator communicator, std::int64_t slots, at::Device device);
  // Copies `local` (fp64 [slots]) and starts its SUM all-reduce. All ranks must call; one at a time.
  void start(at::Tensor const& local);
  // The global sums, [slots]; a view of an own buffer that the next start() overwrites.
  at::Tensor await();
  void abandon();  // instead of await(): what was started is not waited for, the next start() begins anew

 private:
  Communicator communicator_;
  at::Tensor buffer_;
  Pending pending_;
  bool under_way_ = false;
};

}  // namespace duoflow::dist
