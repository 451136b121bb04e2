#pragma once
// Choices of views as pure functions of (seed, position). Private to data/.

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "data/order/permutation.h"

namespace duoflow::data {

enum class ViewStream : std::uint64_t { pair_targets = 1, scene_inputs = 2, scene_targets = 3 };

// `count` distinct elements of `candidates` (the first steps of a Fisher-Yates shuffle), count <= candidates.size().
inline std::vector<std::int64_t> draw_distinct(std::vector<std::int64_t> candidates, std::int64_t count, std::uint64_t seed,
                                               std::uint64_t position, ViewStream stream) {
  auto const drawn = static_cast<std::size_t>(count);
  for (std::size_t i = 0; i < drawn; ++i) {
    auto const left = candidates.size() - i;  // at most thousands: the remainder's bias is below 2^-50
    auto const pick = i + random_bits(seed, position, static_cast<std::uint64_t>(stream), i) % left;
    std::swap(candidates[i], candidates[pick]);
  }
  candidates.resize(drawn);
  return candidates;
}

}  // namespace duoflow::data
