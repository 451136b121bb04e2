#include "data/order/permutation.h"

namespace duoflow::data {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014, variant 13 of Stafford's mixers).
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}
constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

unsigned half_bits(std::uint64_t size) {
  unsigned half = 1;
  while (half < 32 && (size - 1) >> (2 * half) != 0) ++half;
  return half;
}

}  // namespace

std::uint64_t random_bits(std::uint64_t seed, std::uint64_t position, std::uint64_t stream, std::uint64_t counter) {
  auto state = mix(seed + kGolden);
  // The odd factor keeps a word and the words before it from changing places (the seed with the position, above all).
  for (auto const word : {position, stream, counter}) state = mix(state * 0xd1342543de82ef95ULL + mix(word + kGolden));
  return state;
}

KeyedPermutation::KeyedPermutation(std::uint64_t seed, std::uint64_t epoch, std::uint64_t stream, std::uint64_t size)
    : size_(size), half_(half_bits(size)) {
  for (std::uint64_t round = 0; round < kRounds; ++round) keys_[round] = random_bits(seed, epoch, stream, round);
}

std::uint64_t KeyedPermutation::turned(std::uint64_t right, std::uint64_t key) const {
  return mix(key + kGolden * (right + 1)) & ((std::uint64_t{1} << half_) - 1);
}

std::uint64_t KeyedPermutation::forward(std::uint64_t index) const {
  auto left = index >> half_, right = index & ((std::uint64_t{1} << half_) - 1);
  for (auto const key : keys_) {
    auto const swapped = left ^ turned(right, key);
    left = right;
    right = swapped;
  }
  return left << half_ | right;
}

std::uint64_t KeyedPermutation::backward(std::uint64_t index) const {
  auto left = index >> half_, right = index & ((std::uint64_t{1} << half_) - 1);
  for (auto round = kRounds; round-- > 0;) {
    auto const swapped = right ^ turned(left, keys_[round]);
    right = left;
    left = swapped;
  }
  return left << half_ | right;
}

// Cycle walking: a permutation of the domain, followed until it lands in 0..size-1, is a permutation of 0..size-1.
std::uint64_t KeyedPermutation::operator()(std::uint64_t index) const {
  do index = forward(index);
  while (index >= size_);
  return index;
}

std::uint64_t KeyedPermutation::inverse(std::uint64_t index) const {
  do index = backward(index);
  while (index >= size_);
  return index;
}

}  // namespace duoflow::data
