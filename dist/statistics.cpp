#include "dist/statistics.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::dist {

StatisticsExchange::StatisticsExchange(Communicator communicator, std::int64_t slots, at::Device device)
    : communicator_(std::move(communicator)), buffer_(at::zeros({slots}, at::TensorOptions(at::kDouble).device(device))) {}

void StatisticsExchange::start(at::Tensor const& local) {
  if (under_way_) {
    throw std::logic_error("statistics: start() while an exchange is under way (one at a time), await() it first");
  }
  if (local.scalar_type() != at::kDouble || local.sizes() != buffer_.sizes()) {
    throw std::invalid_argument(fmt::format("statistics: got {} of shape {}, expected Double of shape {}",
                                            c10::toString(local.scalar_type()), fmt::join(local.sizes(), "x"),
                                            buffer_.numel()));
  }
  at::NoGradGuard no_grad;
  buffer_.copy_(local.detach(), /*non_blocking=*/true);
  CollectiveLabel const label("statistics");
  pending_ = all_reduce(communicator_, buffer_);
  under_way_ = true;
}

at::Tensor StatisticsExchange::await() {
  if (!under_way_) {
    throw std::logic_error("statistics: await() without start()");
  }
  under_way_ = false;
  pending_.wait();
  pending_ = Pending();
  return buffer_;
}

void StatisticsExchange::abandon() {
  under_way_ = false;
  pending_ = Pending();
}

}  // namespace duoflow::dist
