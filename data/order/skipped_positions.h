#pragma once
// SkippedPositions: ranges of global positions that are never trained on. The positions that are kept stay in their
// order, and each keeps its sample and its random numbers. O(log ranges) either way.

#include <cstdint>
#include <vector>

namespace duoflow::data {

struct PositionRange {
  std::uint64_t first = 0, last = 0;  // both skipped
};

class SkippedPositions {
 public:
  SkippedPositions() = default;
  // In any order; ranges that touch or overlap are one. DataError: last before first.
  explicit SkippedPositions(std::vector<PositionRange> ranges);

  std::uint64_t position(std::uint64_t n) const;            // of the n-th kept one, n from 0
  std::uint64_t kept_before(std::uint64_t position) const;  // how many kept ones are smaller
  std::vector<PositionRange> const& ranges() const { return ranges_; }

 private:
  std::vector<PositionRange> ranges_;
  std::vector<std::uint64_t> kept_, skipped_;  // per range: kept positions before it; skipped ones up to its end
};

}  // namespace duoflow::data
