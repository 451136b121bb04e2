#pragma once
// Sums whose bits do not depend on how many ranks made them (DESIGN section 7): S virtual shards are added along one
// balanced binary tree over the shard index, in fp32.
//
// Within a rank a binary counter of partial sums walks the tree over the rank's own shards (a power of two of them).
// Across ranks every rank is handed its slice of all ranks' subtree sums (an all-to-all) and adds them along the upper
// levels of the tree itself: (W-1)/W of the bytes, as a reduce-scatter, in one exchange instead of log2 W of recursive
// halving. x + y has the same bits as y + x, so which rank adds does not matter.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::dist {

// Adds the rows of `pieces` [W, n] pairwise, neighbours first; the sum is in row 0, the other rows are used up.
void add_along_tree(at::Tensor const& pieces);

// The partial sums of one rank over ranges of a flat gradient buffer.
class ShardSums {
 public:
  // `gradients`: the flat buffer; shards: how many this rank computes in an update, a power of two
  // (std::invalid_argument). Memory: log2(shards) buffers of that size.
  ShardSums(at::Tensor gradients, std::int64_t shards);

  void clear();  // before the first shard of an update
  // [begin, end) of the buffer holds shard number `shard`'s gradients (0 ... shards - 2, in order): they are taken into
  // the partial sums and the range is zeroed for the next shard.
  void take(std::int64_t shard, std::int64_t begin, std::int64_t end);
  // [begin, end) holds the last shard's: it becomes the sum of all.
  void add_to_last(std::int64_t begin, std::int64_t end) const;

 private:
  at::Tensor gradients_;
  std::vector<at::Tensor> partial_;  // by level: the sum of 2^level shards that waits for its neighbour
};

}  // namespace duoflow::dist
