#pragma once
// StepProfile: `train --profile N`. After three steps to warm up, N steps are timed stage by stage, one is counted
// (operator_counts.h), and one is traced; then RUN/profile/ has
//   table.txt     the stages: ms and share of the step (they sum to it), floating-point operations, their rate, its share
//                 of the peak, which is what one large matrix product reaches here (not a data sheet's figure: that is
//                 higher), and MFU: the same of the operations that the step needs once (operator_counts.h); bytes moved,
//                 operators
//   operators.txt the same counts by operator within each stage
//   trace.json    of that one step, for chrome://tracing and Perfetto: every operator, and on CUDA every kernel
// of rank 0. The run goes on as it would have; the profiled steps are slower than others only by the marks.

#include <cstdint>
#include <memory>
#include <string>

#include <c10/core/Device.h>

#include "launch/config.h"

namespace duoflow::launch {

class StepProfile {
 public:
  // `folder` is made. steps: to be timed, at least 1.
  StepProfile(std::string folder, std::int64_t steps, c10::Device device, model::ComputeType compute);
  ~StepProfile();

  std::string const& folder() const;
  void begin_step();
  // The table, once, after the last step that it needs; "" before and after.
  std::string end_step();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace duoflow::launch
