#pragma once
// How the fused operators of the CPU divide rows over threads: in blocks of a fixed number of rows, whatever the threads
// are, so that what is summed over rows (gradients of weights) has the same bits with any number of them.

#include <algorithm>
#include <cstdint>

#include <ATen/Parallel.h>

#include "model/fused/rows.h"

namespace duoflow::model {

constexpr std::int64_t kRowsPerBlock = 64;

// Of `groups` x `count` rows: body(group, first row, end, sums) for every block of every group. `sums`: `width` numbers,
// zero, for what the block adds up. totals[group x width + i]: the blocks' sums, in order; null when there are none.
template <class Body>
void for_row_blocks(std::int64_t groups, std::int64_t count, std::int64_t width, float* totals, Body const& body) {
  std::int64_t const blocks = (count + kRowsPerBlock - 1) / kRowsPerBlock, sums = totals == nullptr ? 0 : groups * blocks * width;
  float* const partial = rows::room<0>(sums);
  std::fill(partial, partial + sums, 0.0F);
  at::parallel_for(0, groups * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::int64_t const first = i % blocks * kRowsPerBlock;
      body(i / blocks, first, std::min(first + kRowsPerBlock, count), totals == nullptr ? nullptr : partial + i * width);
    }
  });
  if (totals == nullptr) return;
  std::fill(totals, totals + groups * width, 0.0F);
  for (std::int64_t i = 0; i < groups * blocks; ++i) rows::add(partial + i * width, totals + i / blocks * width, width);
}

}  // namespace duoflow::model
