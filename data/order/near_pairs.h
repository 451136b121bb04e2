#pragma once
// An order of pairs in which neighbours share rows, for block_shuffle.h.
//
// A pair reads two rows. The pairs of an object with R rows are an R x R square, which a folder lists line by line: k
// pairs in a row then touch R rows as soon as k is more than R. Along a Z-curve (Morton's order) an aligned run of 4^j
// pairs lies in a square of 2^j x 2^j, which has 2^(j+1) rows, and k pairs anywhere touch fewer than 3 sqrt(k) on
// average. Objects stay together as far as their rows do.

#include <cstdint>
#include <vector>

#include "data/shards/shard_index.h"

namespace duoflow::data {

// Numbers of the pairs (into `pairs`) along the curve.
std::vector<std::uint64_t> near_pairs(std::vector<PairEntry> const& pairs);

}  // namespace duoflow::data
