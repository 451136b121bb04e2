#include "dist/sharded_adamw.h"

#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "dist/cuda/update.h"

namespace duoflow::dist {
namespace {

constexpr double kAverageWarmup = 9;  // the decay is (1+n)/(10+n) after n updates: the usual ramp of weight averages

void check_scalar(char const* name, at::Tensor const& scalar, at::Device device) {
  if (scalar.scalar_type() != at::kFloat || scalar.numel() != 1 || scalar.device() != device) {
    throw std::invalid_argument(fmt::format("{} is {} with {} elements on {}, expected one Float on {}", name,
                                            c10::toString(scalar.scalar_type()), scalar.numel(), scalar.device().str(),
                                            device.str()));
  }
}

}  // namespace

ShardedAdamW::ShardedAdamW(FlatBuffer& buffer, AdamWOptions const& options, Communicator shared_over)
    : buffer_(buffer),
      options_(options),
      group_(std::move(shared_over)),
      owned_(owned_ranges(buffer, group_.rank(), group_.size())),
      exp_avg_(at::zeros({buffer.size() / group_.size()}, buffer.parameters().options())),
      exp_avg_sq_(at::zeros_like(exp_avg_)),
      update_count_(at::zeros({}, buffer.parameters().options())) {
  for (GroupRun const& run : buffer.group_runs()) {
    if (run.group < 0 || static_cast<std::size_t>(run.group) >= options_.weight_decay.size()) {
      throw std::invalid_argument(
          fmt::format("parameter group {} has no weight decay ({} are given), give one for each", run.group,
                      options_.weight_decay.size()));
    }
  }
  if (group_.size() == 1) {  // nothing to wait for between buckets: one call per run
    owned_.clear();
    for (GroupRun const& run : buffer.group_runs()) {
      owned_.push_back({run.begin, run.begin, run.end - run.begin, run.group, 0, run.section});
    }
  }
  if (options_.rounds) rounded_ = at::empty({buffer.size()}, buffer.parameters().options().dtype(at::kBFloat16));
  auto const& factors = options_.rate_factor;
  if (!factors.empty() && factors.size() != options_.weight_decay.size()) {
    throw std::invalid_argument(
        fmt::format("{} factors on the learning rate for {} parameter groups, give one for each", factors.size(),
                    options_.weight_decay.size()));
  }
  for (double const factor : factors) {
    rates_.push_back(factor == 1 ? at::Tensor() : at::zeros_like(update_count_));
    factors_.push_back(at::full_like(update_count_, factor));
  }
  double const decay = options_.average.decay;
  if (!(decay >= 0 && decay < 1)) {
    throw std::invalid_argument(
        fmt::format("the average's decay is {} (0 is none, 1 would never move), use a number "
                    "from 0 to below 1",
                    decay));
  }
  if (decay == 0) return;
  average_ = at::empty_like(exp_avg_);
  average_weight_ = at::zeros_like(update_count_);
  start_average();
}

void ShardedAdamW::start_average() {
  at::NoGradGuard no_grad;
  for (OwnedRange const& range : owned_) {
    average_.narrow(0, range.own, range.numel).copy_(buffer_.parameters().narrow(0, range.flat, range.numel));
  }
}

void ShardedAdamW::step(at::Tensor const& own_gradients, at::Tensor const& learning_rate, at::Tensor const& found_inf,
                        std::uint32_t idle_sections, at::Tensor const& gradient_factor) {
  at::NoGradGuard no_grad;
  at::Device const device = buffer_.parameters().device();
  check_scalar("learning_rate", learning_rate, device);
  check_scalar("found_inf", found_inf, device);
  if (gradient_factor.defined()) check_scalar("gradient_factor", gradient_factor, device);
  bool const by_kernel = has_update_kernel(device);
  if (gradient_factor.defined() && !by_kernel) own_gradients.mul_(gradient_factor.reshape({}));
  update_count_.add_(1 - found_inf.reshape({}));
  for (std::size_t g = 0; g < rates_.size(); ++g)
    if (rates_[g].defined()) at::mul_out(rates_[g], learning_rate.reshape({}), factors_[g]);
  if (average_.defined()) weigh_average(found_inf);
  for (OwnedRange const& range : owned_) {
    bool const idle = (idle_sections >> range.section & 1) != 0;
    if (by_kernel) {
      update_by_kernel(range, own_gradients, learning_rate, found_inf, gradient_factor, idle);
    } else {
      if (!idle) update(range, own_gradients, learning_rate, found_inf);
      if (average_.defined()) follow(range, own_gradients);
    }
    if (rounded_.defined() && group_.size() == 1 && !by_kernel && !idle)
      rounded_.narrow(0, range.flat, range.numel).copy_(buffer_.parameters().narrow(0, range.flat, range.numel));
    bool const bucket_done = &range == &owned_.back() || (&range + 1)->bucket != range.bucket;
    if (group_.size() > 1 && bucket_done) start_gather(buffer_.buckets()[range.bucket]);
  }
}

at::Tensor ShardedAdamW::rate_of(int group, at::Tensor const& learning_rate) {
  auto const& scaled = rates_.empty() ? at::Tensor() : rates_[static_cast<std::size_t>(group)];
  return scaled.defined() ? scaled : learning_rate;
}

void ShardedAdamW::update(OwnedRange const& range, at::Tensor const& own_gradients, at::Tensor const& learning_rate,
                          at::Tensor const& found_inf) {
  auto const own = [&range](at::Tensor const& flat) { return flat.narrow(0, range.own, range.numel); };
  at::Tensor parameters[] = {buffer_.parameters().narrow(0, range.flat, range.numel)};
  at::Tensor gradients[] = {own(own_gradients)};
  at::Tensor averages[] = {own(exp_avg_)};
  at::Tensor squares[] = {own(exp_avg_sq_)};
  at::Tensor counts[] = {update_count_};
  at::_fused_adamw_(parameters, gradients, averages, squares, /*max_exp_avg_sqs=*/{}, counts,
                    rate_of(range.group, learning_rate), options_.beta1, options_.beta2,
                    options_.weight_decay[static_cast<std::size_t>(range.group)], options_.eps, /*amsgrad=*/false,
                    /*maximize=*/false, /*grad_scale=*/{}, found_inf);
}

void ShardedAdamW::update_by_kernel(OwnedRange const& range, at::Tensor const& own_gradients, at::Tensor const& learning_rate,
                                    at::Tensor const& found_inf, at::Tensor const& gradient_factor, bool idle) {
  auto const own = [&range](at::Tensor const& flat) { return flat.defined() ? flat.mutable_data_ptr<float>() + range.own : nullptr; };
  auto const scalar = [](at::Tensor const& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; };
  kernels::AdamWRun run;
  run.parameters = buffer_.parameters().mutable_data_ptr<float>() + range.flat;
  run.gradients = own(own_gradients);
  run.exp_avg = own(exp_avg_), run.exp_avg_sq = own(exp_avg_sq_), run.average = own(average_);
  if (rounded_.defined() && group_.size() == 1) run.bf16 = rounded_.mutable_data_ptr<at::BFloat16>() + range.flat;
  run.count = range.numel;
  kernels::AdamWScalars const scalars{scalar(rate_of(range.group, learning_rate)), scalar(found_inf), scalar(update_count_),
                                      scalar(average_weight_), scalar(gradient_factor)};
  run_update_kernel(run, scalars,
                    {options_.beta1, options_.beta2, options_.weight_decay[static_cast<std::size_t>(range.group)], options_.eps, idle},
                    buffer_.parameters().device());
}

// 0 in a skipped update, whose parameters the average then keeps away from.
void ShardedAdamW::weigh_average(at::Tensor const& found_inf) {
  double const least = 1 - options_.average.decay;
  at::Tensor const weight = options_.average.warmup
                                ? at::clamp_min(kAverageWarmup / (update_count_ + kAverageWarmup), least)
                                : at::full_like(update_count_, least);
  average_weight_.copy_(weight * (1 - found_inf.reshape({})));
}

void ShardedAdamW::follow(OwnedRange const& range, at::Tensor const& own_gradients) {
  at::Tensor average = average_.narrow(0, range.own, range.numel);
  at::Tensor difference = own_gradients.narrow(0, range.own, range.numel);
  at::sub_out(difference, buffer_.parameters().narrow(0, range.flat, range.numel), average);
  average.add_(difference.mul_(average_weight_));
}

// Beside the update of the buckets that follow, and whatever comes next.
void ShardedAdamW::start_gather(BucketRange const& bucket) {
  std::int64_t const size = bucket.end - bucket.begin, share = size / group_.size();
  at::Tensor const parameters = buffer_.parameters().narrow(0, bucket.begin, size);
  CollectiveLabel const label("parameters", gathers_.size());
  gathers_.push_back(all_gather(group_, parameters, parameters.narrow(0, group_.rank() * share, share)));
}

void ShardedAdamW::wait_for_parameters() {
  for (Pending& gather : gathers_) gather.wait();
  if (!gathers_.empty()) rounded_stands_ = false;
  gathers_.clear();
  if (rounded_stands_ || !rounded_.defined()) return;
  at::NoGradGuard const no_grad;
  rounded_.copy_(buffer_.parameters());
  rounded_stands_ = true;
}

void ShardedAdamW::abandon() {
  gathers_.clear();
  rounded_stands_ = false;
}

void ShardedAdamW::gather(at::Tensor const& own, std::int64_t begin, std::vector<at::Tensor> const& pieces) const {
  at::NoGradGuard no_grad;
  std::int64_t largest = 0;
  for (BucketRange const& bucket : buffer_.buckets()) largest = std::max(largest, bucket.end - bucket.begin);
  at::Tensor const room = at::empty({largest}, own.options());  // for one bucket at a time: there may be little
  for (BucketRange const& bucket : buffer_.buckets()) {
    std::int64_t const size = bucket.end - bucket.begin, share = size / group_.size();
    at::Tensor const whole = room.narrow(0, 0, size);
    all_gather(group_, whole, own.narrow(0, bucket.begin / group_.size(), share)).wait();
    std::int64_t at = begin;
    for (at::Tensor const& into : pieces) {
      std::int64_t const first = std::max(at, bucket.begin), last = std::min(at + into.numel(), bucket.end);
      if (first < last) into.narrow(0, first - at, last - first).copy_(whole.narrow(0, first - bucket.begin, last - first));
      at += into.numel();
    }
  }
}

void ShardedAdamW::restore(at::Tensor const& own, std::int64_t begin, at::Tensor const& values) const {
  at::NoGradGuard no_grad;
  at::Tensor const flat = values.reshape({-1});
  for (OwnedRange const& range : owned_) {
    std::int64_t const first = std::max(begin, range.flat),
                       last = std::min(begin + flat.numel(), range.flat + range.numel);
    if (first < last)
      own.narrow(0, range.own + first - range.flat, last - first).copy_(flat.narrow(0, first - begin, last - first));
  }
}

}  // namespace duoflow::dist
