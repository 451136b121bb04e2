#include "launch/step_record.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace duoflow::launch {

StepRecords::StepRecords(int size, at::Device device) : device_(device), statistics_(statistic_slots(size)) {
  for (auto& slot : slots_) {
    slot.host =
        at::zeros({statistics_ + kOwnCount}, at::TensorOptions().dtype(at::kDouble).pinned_memory(device.is_cuda()));
    if (device.is_cuda()) slot.event.emplace(device.type());
  }
}

void StepRecords::push(std::int64_t step, std::int64_t samples, at::Tensor const& statistics, at::Tensor const& own,
                       double comm_wait_ms) {
  auto& slot = slots_[static_cast<std::size_t>(pushed_++ % 2)];
  slot.host.narrow(0, 0, statistics_).copy_(statistics, /*non_blocking=*/true);
  slot.host.narrow(0, statistics_, kOwnCount).copy_(own, /*non_blocking=*/true);
  if (slot.event) slot.event->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  slot.numbers = {step, samples, {}, {}, comm_wait_ms};
  slot.unread = true;
}

std::optional<StepNumbers> StepRecords::take(bool latest) {
  if (pushed_ == 0) return std::nullopt;
  auto& slot = slots_[static_cast<std::size_t>((pushed_ - (latest ? 1 : 0)) % 2)];
  if (!slot.unread) return std::nullopt;
  if (slot.event) slot.event->synchronize();  // launched a step ago: long done
  auto const* values = slot.host.const_data_ptr<double>();
  slot.numbers.statistics.assign(values, values + statistics_);
  std::copy_n(values + statistics_, static_cast<std::size_t>(kOwnCount), slot.numbers.own.begin());
  slot.unread = false;
  return slot.numbers;
}

namespace {

double per_rank(std::vector<double> const& statistics, int rank, PerRankSlot slot) {
  return statistics[static_cast<std::size_t>(kFirstPerRank + kPerRank * rank + slot)];
}

// Ranks wait for each other: the slowest is the one that waits least.
double own_ms(std::vector<double> const& statistics, int rank) {
  return per_rank(statistics, rank, kStepMs) - per_rank(statistics, rank, kCommWaitMs);
}

void add_times(nlohmann::ordered_json& line, StepNumbers const& numbers, std::vector<double> const& next, int size) {
  int slowest = 0;
  double waited = 0;
  for (int rank = 0; rank < size; ++rank) {
    if (own_ms(next, rank) > own_ms(next, slowest)) slowest = rank;
    waited = std::max(waited, per_rank(next, rank, kDataWaitMs));
  }
  auto const step_ms = per_rank(next, slowest, kStepMs);
  line["step_ms"] = step_ms;
  line["data_wait_ms"] = waited;
  line["comm_wait_ms"] = numbers.comm_wait_ms;
  line["samples_per_s"] = step_ms > 0 ? 1e3 * numbers.statistics[model::kSamples] / step_ms : std::nan("");
  line["slowest_rank"] = slowest;
}

// The most that tensors of this rank have taken on its GPU so far; NaN on the CPU.
double peak_device_memory_mib() {
  if (!at::hasCUDA()) return std::nan("");
  auto* const allocator = at::getDeviceAllocator(at::kCUDA);
  if (!allocator->initialized()) return std::nan("");
  auto const index = c10::impl::VirtualGuardImpl(at::kCUDA).getDevice().index();
  auto const statistics = allocator->getDeviceStats(index);
  auto const& bytes = statistics.allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  return static_cast<double>(bytes.peak) / (1024.0 * 1024.0);
}

}  // namespace

LossBalance loss_balance(StepNumbers const& numbers, std::vector<double> const& next, LineOptions const& options) {
  auto const& s = numbers.statistics;
  auto const mean = [&](int slot) { return s[static_cast<std::size_t>(slot)] / s[model::kSamples]; };
  double const none = std::nan("");
  double const w_v = options.joint ? options.lambda_v * numbers.own[kVelocityWeight] : 0;
  double const w_r = options.lambda_r * numbers.own[kRenderWeight];
  LossBalance balance;
  // A loss whose weight is 0 is not computed: no number of it is one.
  balance.velocity_loss = w_v != 0 ? mean(model::kVelocityLoss) : none;
  balance.render_loss = w_r != 0 ? mean(model::kRenderLoss) : none;
  balance.weighted_velocity = w_v != 0 ? w_v * balance.velocity_loss : 0;
  balance.total = balance.weighted_velocity + (w_r != 0 ? w_r * balance.render_loss : 0);
  auto const raw_velocity = options.lambda_v * balance.velocity_loss;
  balance.raw_share = raw_velocity / (raw_velocity + options.lambda_r * balance.render_loss);
  auto const v = std::sqrt(next[model::kGradVelocitySq]), r = std::sqrt(next[model::kGradRenderSq]);
  balance.grad_ratio = options.joint && v > 0 ? r / v : none;
  balance.grad_cosine = options.joint && v > 0 && r > 0 ? next[model::kGradDot] / (v * r) : none;
  return balance;
}

nlohmann::ordered_json metrics_line(StepNumbers const& numbers, std::vector<double> const& next,
                                    LineOptions const& options) {
  auto const& s = numbers.statistics;
  auto const mean = [&](int slot) { return s[static_cast<std::size_t>(slot)] / s[model::kSamples]; };
  auto const& own = numbers.own;
  nlohmann::ordered_json line;
  line["step"] = numbers.step;
  line["samples"] = numbers.samples;
  double const none = std::nan("");
  bool const has_render = options.lambda_r * own[kRenderWeight] != 0;
  auto const balance = loss_balance(numbers, next, options);
  line["velocity_loss"] = balance.velocity_loss;
  line["render_loss"] = balance.render_loss;
  line["total_loss"] = balance.total;
  line["velocity_loss_ratio"] = options.joint ? balance.weighted_velocity / balance.total : none;
  line["mse"] = has_render ? mean(model::kMse) : none;
  line["lpips"] = has_render && options.lpips ? mean(model::kLpips) : none;
  line["perceptual"] = has_render && options.perceptual ? mean(model::kPerceptual) : none;
  line["psnr"] = has_render ? mean(model::kPsnr) : none;
  line["latent_std"] = mean(model::kLatentStd) > 0 ? mean(model::kLatentStd) : none;
  line["velocity_weight"] = options.joint ? own[kVelocityWeight] : none;
  line["render_weight"] = own[kRenderWeight];
  line["grad_norm"] = own[kGradNorm];
  line["grad_ratio"] = balance.grad_ratio;
  line["grad_cosine"] = balance.grad_cosine;
  line["lr"] = own[kLearningRate];
  line["skipped"] = own[kSkipped] != 0;
  add_times(line, numbers, next, options.size);
  line["gpu_mem_mib"] = peak_device_memory_mib();
  return line;
}

}  // namespace duoflow::launch
