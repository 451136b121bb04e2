#include "launch/step_statistics.h"

#include <utility>

#include <ATen/ATen.h>

namespace duoflow::launch {
namespace {

at::TensorOptions fp64(at::Device device) { return at::TensorOptions().dtype(at::kDouble).device(device); }

// The launcher's slots follow the shards' sums.
std::int64_t wire_slots(std::int64_t shards, int size) {
  return (shards - 1) * model::kStatisticCount + statistic_slots(size);
}

}  // namespace

StepStatistics::StepStatistics(dist::Communicator const& communicator, std::int64_t shards, at::Device device)
    : rank_(communicator.rank()),
      size_(communicator.size()),
      shards_(shards),
      device_(device),
      exchange_(communicator, wire_slots(shards, communicator.size()), device),
      local_(at::zeros({wire_slots(shards, communicator.size())}, fp64(device))),
      cut_(at::zeros({shards, 3}, fp64(device))),
      last_cut_(at::zeros({shards, 3}, fp64(device))),
      first_bad_(at::zeros({}, fp64(device))) {}

void StepStatistics::begin() {
  local_.zero_();
  first_bad_.zero_();
  std::swap(cut_, last_cut_);
  cut_.zero_();
}

void StepStatistics::add(std::int64_t shard, at::Tensor const& sums, std::uint64_t first_position) {
  local_.narrow(0, shard * model::kStatisticCount, model::kStatisticCount).add_(sums);
  auto const bad = at::logical_and(first_bad_ == 0, sums[model::kNonFinite] > 0);
  // where() would copy the number and wait for the device
  first_bad_.add_(bad.to(at::kDouble), static_cast<double>(first_position + 1));
}

void StepStatistics::send(Flags const& flags) {
  auto const per_shard = local_.narrow(0, 0, shards_ * model::kStatisticCount).view({shards_, model::kStatisticCount});
  per_shard.narrow(1, model::kGradVelocitySq, 3).add_(last_cut_);
  auto const rest = statistic_slots(size_) - model::kStatisticCount;
  auto const host = at::zeros({rest}, at::TensorOptions(at::kDouble).pinned_memory(device_.is_cuda()));
  auto* slots = host.mutable_data_ptr<double>() - model::kStatisticCount;
  auto const mine = kFirstPerRank + kPerRank * rank_;
  slots[kStop] = flags.stop ? 1 : 0;
  slots[kTimeUp] = flags.time_up ? 1 : 0;
  slots[kSaveNumber] = flags.save.number;
  slots[kSaveWritten] = flags.save.written;
  slots[kSavePublished] = flags.save.published;
  slots[kSaveFailed] = flags.save.failed;
  slots[mine + kStepMs] = flags.step_ms;
  slots[mine + kDataWaitMs] = flags.data_wait_ms;
  slots[mine + kCommWaitMs] = flags.comm_wait_ms;
  auto const launch = local_.narrow(0, shards_ * model::kStatisticCount, rest);
  launch.copy_(host, /*non_blocking=*/true);  // from pinned memory: else the copy waits for the device
  launch[mine - model::kStatisticCount + kFirstBadPosition].copy_(first_bad_);
  exchange_.start(local_);
}

at::Tensor StepStatistics::await() {
  auto const wire = exchange_.await();
  if (shards_ == 1) return wire;
  auto const sums = shards_ * model::kStatisticCount;
  return at::cat({wire.narrow(0, 0, sums).view({shards_, model::kStatisticCount}).sum(0),
                  wire.narrow(0, sums, wire.numel() - sums)});
}

}  // namespace duoflow::launch
