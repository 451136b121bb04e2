#include "data/order/skipped_positions.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/error.h"

namespace duoflow::data {

SkippedPositions::SkippedPositions(std::vector<PositionRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](auto const& a, auto const& b) { return a.first < b.first; });
  for (auto const& range : ranges) {
    if (range.last < range.first)
      throw DataError(fmt::format("the range {}-{} of positions runs backwards (nothing is in it), exchange its ends",
                                  range.first, range.last));
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1)
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    else
      ranges_.push_back(range);
  }
  std::uint64_t skipped = 0;
  for (auto const& range : ranges_) {
    kept_.push_back(range.first - skipped);
    skipped += range.last - range.first + 1;
    skipped_.push_back(skipped);
  }
}

std::uint64_t SkippedPositions::position(std::uint64_t n) const {
  auto const behind = std::upper_bound(kept_.begin(), kept_.end(), n) - kept_.begin();
  return behind == 0 ? n : n + skipped_[static_cast<std::size_t>(behind - 1)];
}

std::uint64_t SkippedPositions::kept_before(std::uint64_t position) const {
  auto const behind =
      std::partition_point(ranges_.begin(), ranges_.end(), [&](auto const& r) { return r.last < position; }) -
      ranges_.begin();
  auto const skipped = behind == 0 ? 0 : skipped_[static_cast<std::size_t>(behind - 1)];
  bool const inside = behind < static_cast<std::ptrdiff_t>(ranges_.size()) &&
                      ranges_[static_cast<std::size_t>(behind)].first < position;
  return inside ? kept_[static_cast<std::size_t>(behind)] : position - skipped;
}

}  // namespace duoflow::data
