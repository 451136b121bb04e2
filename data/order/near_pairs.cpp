#include "data/order/near_pairs.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace duoflow::data {
namespace {

// Whether a comes before b on the curve: the higher of the two bits in which they differ first decides, x0's above
// x1's.
bool before(PairEntry const& a, PairEntry const& b) {
  auto const x0 = static_cast<std::uint64_t>(a.x0 ^ b.x0), x1 = static_cast<std::uint64_t>(a.x1 ^ b.x1);
  bool const x1_decides = x0 < x1 && x0 < (x0 ^ x1);  // the highest bit of x1 is above x0's (Chan 2002)
  return x1_decides ? a.x1 < b.x1 : a.x0 < b.x0;
}

}  // namespace

std::vector<std::uint64_t> near_pairs(std::vector<PairEntry> const& pairs) {
  std::vector<std::uint64_t> order(pairs.size());
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return before(pairs[a], pairs[b]); });
  return order;
}

}  // namespace duoflow::data
