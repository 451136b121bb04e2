#include "launch/step_statistics.h"

#include <ATen/ATen.h>

namespace duoflow::launch {
namespace {

at::TensorOptions fp64(at::Device device) { return at::TensorOptions().dtype(at::kDouble).device(device); }

// The launcher's slots follow the shards' sums.
std::int64_t wire_slots(std::int64_t shards, int size) {
  return (shards - 1) * model::kStatisticCount + statistic_slots(size);
}

}  // namespace

at::Tensor flag_slots(StepFlags const& flags, dist::Communicator const& communicator, at::Device device) {
  auto const host = at::zeros({statistic_slots(communicator.size()) - model::kStatisticCount},
                              at::TensorOptions(at::kDouble).pinned_memory(device.is_cuda()));
  auto* slots = host.mutable_data_ptr<double>() - model::kStatisticCount;
  auto const mine = kFirstPerRank + kPerRank * communicator.rank();
  slots[kStop] = flags.stop ? 1 : 0;
  slots[kTimeUp] = flags.time_up ? 1 : 0;
  slots[kSaveNumber] = flags.save.number;
  slots[kSaveWritten] = flags.save.written;
  slots[kSavePublished] = flags.save.published;
  slots[kSaveFailed] = flags.save.failed;
  slots[mine + kStepMs] = flags.step_ms;
  slots[mine + kDataWaitMs] = flags.data_wait_ms;
  slots[mine + kCommWaitMs] = flags.comm_wait_ms;
  return host.to(device, /*non_blocking=*/true);  // from pinned memory: else the copy waits for the device
}

at::Tensor sample_number(std::uint64_t position, at::Device device) {
  return at::full({}, static_cast<double>(position + 1), fp64(device));
}

StepStatistics::StepStatistics(dist::Communicator const& communicator, std::int64_t shards, at::Device device)
    : rank_(communicator.rank()),
      shards_(shards),
      exchange_(communicator, wire_slots(shards, communicator.size()), device),
      squares_(communicator, 2 * shards, device),
      local_(at::zeros({wire_slots(shards, communicator.size())}, fp64(device))),
      cut_(at::zeros({shards, 3}, fp64(device))),
      last_cut_(at::zeros({shards, 3}, fp64(device))),
      first_bad_(at::zeros({}, fp64(device))) {}

void StepStatistics::begin() {
  local_.zero_();
  first_bad_.zero_();
  last_cut_.copy_(cut_);  // not swapped: a captured step finds both where they were
  cut_.zero_();
}

void StepStatistics::add(std::int64_t shard, at::Tensor const& sums, at::Tensor const& first_sample) {
  local_.narrow(0, shard * model::kStatisticCount, model::kStatisticCount).add_(sums);
  auto const bad = at::logical_and(first_bad_ == 0, sums[model::kNonFinite] > 0);
  first_bad_.addcmul_(bad.to(at::kDouble), first_sample);
}

void StepStatistics::send(at::Tensor const& flags) {
  auto const per_shard = local_.narrow(0, 0, shards_ * model::kStatisticCount).view({shards_, model::kStatisticCount});
  per_shard.narrow(1, model::kGradVelocitySq, 3).add_(last_cut_);
  auto const launch = local_.narrow(0, shards_ * model::kStatisticCount, flags.numel());
  launch.copy_(flags);
  launch[kFirstPerRank + kPerRank * rank_ + kFirstBadPosition - model::kStatisticCount].copy_(first_bad_);
  exchange_.start(local_);
}

at::Tensor StepStatistics::reduce_squares(at::Tensor const& of_shards) {
  squares_.start(of_shards.flatten());
  return squares_.await().view({shards_, 2}).sum(0);
}

at::Tensor StepStatistics::await() {
  auto const wire = exchange_.await();
  if (shards_ == 1) return wire;
  auto const sums = shards_ * model::kStatisticCount;
  return at::cat({wire.narrow(0, 0, sums).view({shards_, model::kStatisticCount}).sum(0),
                  wire.narrow(0, sums, wire.numel() - sums)});
}

}  // namespace duoflow::launch
