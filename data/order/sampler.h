#pragma once
// Sampler: "which sample of this folder is at global position p" as a pure function. Epoch e orders the folder's N
// samples by a keyed permutation, or by blocks (block_shuffle.h); positions run on across epochs, so the state of a run
// is {seed, position}. O(1).
//
// In a mixture (mixture.h) the folder has the positions that are drawn from it, and its own epochs.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "data/order/block_shuffle.h"
#include "data/order/mixture.h"
#include "data/order/permutation.h"

namespace duoflow::data {

struct SamplerOptions {
  BlockShuffle blocks{};
  // The folder's samples from place to place, where that is not their numbering (near_pairs.h); blocks are made of it.
  std::shared_ptr<std::vector<std::uint64_t> const> neighbours{};
  std::shared_ptr<Mixture const> mixture{};  // null: every position is this folder's
  std::size_t folder = 0;                    // in the mixture; the orders of its folders are independent
};

class Sampler {
 public:
  // DataError if size is 0, a window has no block, or the neighbours are of another number.
  Sampler(std::uint64_t seed, std::uint64_t size, SamplerOptions options = {});
  std::uint64_t size() const { return size_; }
  // In [0, size). std::logic_error: the position is another folder's.
  std::uint64_t index_at(std::uint64_t position) const;

 private:
  std::uint64_t seed_, size_;
  SamplerOptions options_;
};

// The contiguous block [first, first+count) of a global batch of `batch` that rank `rank` of `size` takes: sizes differ by at
// most one, the first ranks take the larger ones.
std::pair<std::int64_t, std::int64_t> rank_block(std::int64_t batch, int rank, int size);

}  // namespace duoflow::data
