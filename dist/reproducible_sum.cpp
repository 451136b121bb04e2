#include "dist/reproducible_sum.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::dist {

void add_along_tree(at::Tensor const& pieces) {
  at::NoGradGuard no_grad;
  std::int64_t const rows = pieces.size(0);
  for (std::int64_t stride = 1; stride < rows; stride *= 2) {
    for (std::int64_t row = 0; row + stride < rows; row += 2 * stride) {
      pieces.select(0, row).add_(pieces.select(0, row + stride));
    }
  }
}

ShardSums::ShardSums(at::Tensor gradients, std::int64_t shards) : gradients_(std::move(gradients)) {
  if (shards < 1 || (shards & (shards - 1)) != 0) {
    throw std::invalid_argument(
        fmt::format("a rank computes {} virtual shards (a binary tree needs a power of two), choose "
                    "dist.virtual_shards and the number of ranks as powers of two",
                    shards));
  }
  for (std::int64_t level = 1; level < shards; level *= 2) {
    partial_.push_back(at::zeros_like(gradients_));
  }
}

void ShardSums::clear() {
  at::NoGradGuard no_grad;
  // Ranges that no shard of this update touches must not keep the last one's.
  for (at::Tensor& sum : partial_) {
    sum.zero_();
  }
}

// The binary counter: shard k meets the waiting sums of the levels at which k has trailing ones.
void ShardSums::take(std::int64_t shard, std::int64_t begin, std::int64_t end) {
  at::NoGradGuard no_grad;
  at::Tensor const range = gradients_.narrow(0, begin, end - begin);
  std::size_t level = 0;
  for (; (shard >> level & 1) != 0; ++level) {
    range.add_(partial_.at(level).narrow(0, begin, end - begin));
  }
  partial_.at(level).narrow(0, begin, end - begin).copy_(range);
  range.zero_();
}

void ShardSums::add_to_last(std::int64_t begin, std::int64_t end) const {
  at::NoGradGuard no_grad;
  at::Tensor const range = gradients_.narrow(0, begin, end - begin);
  for (at::Tensor const& sum : partial_) {
    range.add_(sum.narrow(0, begin, end - begin));
  }
}

}  // namespace duoflow::dist
