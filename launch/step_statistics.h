#pragma once
// StepStatistics: the vector of sums that ranks exchange once per step, and what rides along (DESIGN section 2).
//
// On the wire: model::kStatisticCount sums for each of `shards` virtual shards (1: for the whole batch), then the
// launcher's slots (step_record.h). A rank fills its own shards and leaves zeros elsewhere, which is exact to add; the
// shards are summed in fixed order by everyone, so with fixed shards the result has the same bits at any rank count
// (reproducible mode, DESIGN section 7).

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "dist/checkpoint/background_writer.h"
#include "dist/statistics.h"
#include "launch/step_record.h"

namespace duoflow::launch {

// What the host says in a step; it rides along with the statistics.
struct StepFlags {
  bool stop = false, time_up = false;
  double step_ms = 0, data_wait_ms = 0, comm_wait_ms = 0;  // of the step before
  dist::SaveReport save{};                                 // of the checkpoint under way
};
// The two numbers of the host that a step needs, on the device, without waiting for it: no kernel has one of the host's
// numbers inside that the next step's has not (a captured step is the same kernels every time).
at::Tensor flag_slots(StepFlags const& flags, dist::Communicator const& communicator, at::Device device);
at::Tensor sample_number(std::uint64_t position, at::Device device);  // fp64 scalar, from 1: 0 is no sample

class StepStatistics {
 public:
  StepStatistics(dist::Communicator const& communicator, std::int64_t shards, at::Device device);

  void begin();  // of a step: what the last one measured at the cut goes along in this one's vector
  // One micro-step's sums; first_sample: sample_number of its first, to name one whose loss is not finite.
  void add(std::int64_t shard, at::Tensor const& sums, at::Tensor const& first_sample);
  // Where a micro-step's run_from_cut adds its fp64 [3]; sent with the next step's vector.
  at::Tensor cut_sums(std::int64_t shard) { return cut_.select(0, shard); }

  void send(at::Tensor const& flags);  // flag_slots
  at::Tensor await();                  // reduced, [statistic_slots(size)]
  // This rank's fp64 [shards, 2], zeros where another's shards are -> the sums over all, [2]. A reduction of its own,
  // waited for at once. Collective.
  at::Tensor reduce_squares(at::Tensor const& of_shards);
  void abandon() {
    exchange_.abandon();
    squares_.abandon();
  }

 private:
  int rank_;
  std::int64_t shards_;
  dist::StatisticsExchange exchange_, squares_;
  at::Tensor local_, cut_, last_cut_, first_bad_;
};

}  // namespace duoflow::launch
