#pragma once
// Sampler: "the sample at global position p" as a pure function. Epoch e orders 0..N-1 by a keyed permutation
// (Feistel network with cycle walking, key from seed and e); positions run on across epochs, so the state of a run is
// {seed, position}. No memory, O(1).

#include <cstdint>
#include <utility>

namespace duoflow::data {

class Sampler {
 public:
  Sampler(std::uint64_t seed, std::uint64_t size);  // DataError if size is 0
  std::uint64_t size() const { return size_; }
  std::uint64_t index_at(std::uint64_t position) const;  // in [0, size)

 private:
  std::uint64_t seed_, size_;
};

// The contiguous block [first, first+count) of a global batch of `batch` that rank `rank` of `size` takes: sizes differ by at
// most one, the first ranks take the larger ones.
std::pair<std::int64_t, std::int64_t> rank_block(std::int64_t batch, int rank, int size);

// Counter-based 64-bit random numbers for choices in this folder (view selection): a pure function (SplitMix64 finaliser chain).
std::uint64_t random_bits(std::uint64_t seed, std::uint64_t position, std::uint64_t stream, std::uint64_t counter);

}  // namespace duoflow::data
