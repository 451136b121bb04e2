#pragma once
// Block shuffle: an order of 0..N-1 whose neighbours come from few places of the folder, for folders larger than
// memory.
//
// Block: `block` samples that are neighbours in the folder. The borders of the blocks lie elsewhere in every epoch.
// Window: `window` blocks that a keyed permutation of all blocks has brought together; its samples are permuted. The
// windows follow one another, so at any time reading needs one window in memory, two where one ends.
//
// What is proven (tests/data/block_shuffle_test.cpp): each epoch is a permutation; within an epoch any
// (window - 1) * block positions in a row come from at most 2 * window blocks. A pure function: O(1), no memory.

#include <cstdint>

namespace duoflow::data {

struct BlockShuffle {
  std::uint64_t block = 0;   // samples; 0: no blocks, every sample may follow every other
  std::uint64_t window = 1;  // blocks
};

// Which sample of `size` stands at `place` (< size) of the epoch.
std::uint64_t block_shuffled(BlockShuffle const& shuffle, std::uint64_t seed, std::uint64_t epoch, std::uint64_t size,
                             std::uint64_t place);

}  // namespace duoflow::data
