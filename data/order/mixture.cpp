#include "data/order/mixture.h"

#include <fmt/format.h>

#include <numeric>
#include <utility>

#include "data/error.h"

namespace duoflow::data {
namespace {

__extension__ using Wide = unsigned __int128;
constexpr std::uint64_t kMostWeight = std::uint64_t{1} << 62;

// round(position * part / whole): how many of the first `position` samples are the part's.
std::uint64_t of_part(std::uint64_t position, std::uint64_t part, std::uint64_t whole) {
  return static_cast<std::uint64_t>((Wide{position} * part + whole / 2) / whole);
}

}  // namespace

Mixture::Mixture(std::vector<std::uint64_t> weights) : weights_(std::move(weights)) {
  if (weights_.empty()) throw DataError("a mixture of no folders holds no sample (none was given), give one");
  std::uint64_t divisor = 0;
  for (auto const weight : weights_) divisor = std::gcd(divisor, weight);
  before_.push_back(0);
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] == 0)
      throw DataError(fmt::format("folder {} of a mixture has weight 0 (it would never be read), leave it out", i));
    weights_[i] /= divisor;
    if (weights_[i] > kMostWeight - before_.back())
      throw DataError(
          "the weights of a mixture add up to more than 2^62 (positions could not be told), make them smaller");
    before_.push_back(before_.back() + weights_[i]);
  }
}

Mixture::Draw Mixture::at(std::uint64_t position) const {
  std::size_t first = 0, end = weights_.size();
  while (end - first > 1) {
    auto const middle = first + (end - first) / 2;
    auto const part = before_[middle] - before_[first], whole = before_[end] - before_[first];
    auto const left = of_part(position, part, whole);
    if (of_part(position + 1, part, whole) > left) {
      end = middle;
      position = left;
    } else {
      first = middle;
      position -= left;
    }
  }
  return {first, position};
}

double Mixture::share(std::size_t folder) const {
  return static_cast<double>(weights_[folder]) / static_cast<double>(before_.back());
}

}  // namespace duoflow::data
