#include "data/sampler.h"

#include <fmt/format.h>

#include <algorithm>

#include "data/error.h"

namespace duoflow::data {
namespace {

// Six rounds of a Feistel network with a good round function leave no visible structure (four are provably enough against
// a chosen-plaintext observer, which an ordering is far from needing).
constexpr std::uint64_t kRounds = 6;
constexpr std::uint64_t kOrderStream = 0x6f72646572ULL;  // keeps the orders apart from other choices made with the same seed

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014, variant 13 of Stafford's mixers).
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}
constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

// Bits of one half of the smallest domain of 2^(2 h) numbers that holds 0..size-1.
unsigned half_bits(std::uint64_t size) {
  unsigned half = 1;
  while (half < 32 && (size - 1) >> (2 * half) != 0) ++half;
  return half;
}

std::uint64_t permute(std::uint64_t index, unsigned half, std::uint64_t seed, std::uint64_t epoch) {
  auto const mask = (std::uint64_t{1} << half) - 1;
  auto left = index >> half, right = index & mask;
  for (std::uint64_t round = 0; round < kRounds; ++round) {
    auto const key = random_bits(seed, epoch, kOrderStream, round);
    auto const swapped = left ^ (mix(key + kGolden * (right + 1)) & mask);
    left = right;
    right = swapped;
  }
  return left << half | right;
}

}  // namespace

std::uint64_t random_bits(std::uint64_t seed, std::uint64_t position, std::uint64_t stream, std::uint64_t counter) {
  auto state = mix(seed + kGolden);
  // The odd factor keeps a word and the words before it from changing places (the seed with the position, above all).
  for (auto const word : {position, stream, counter}) state = mix(state * 0xd1342543de82ef95ULL + mix(word + kGolden));
  return state;
}

Sampler::Sampler(std::uint64_t seed, std::uint64_t size) : seed_(seed), size_(size) {
  if (size == 0) throw DataError("there is no sample to draw (the data folder is empty), make or choose another folder");
}

std::uint64_t Sampler::index_at(std::uint64_t position) const {
  auto const epoch = position / size_;
  auto const half = half_bits(size_);
  // Cycle walking: a permutation of the domain, followed until it lands in 0..size-1, is a permutation of 0..size-1.
  auto index = permute(position % size_, half, seed_, epoch);
  while (index >= size_) index = permute(index, half, seed_, epoch);
  return index;
}

std::pair<std::int64_t, std::int64_t> rank_block(std::int64_t batch, int rank, int size) {
  if (batch < 0 || size < 1 || rank < 0 || rank >= size)
    throw DataError(fmt::format("no block of a batch of {} for rank {} of {} (0 <= rank < size needed), correct the call", batch, rank, size));
  auto const base = batch / size, larger = batch % size;
  auto const first = rank * base + std::min<std::int64_t>(rank, larger);
  return {first, base + (rank < larger ? 1 : 0)};
}

}  // namespace duoflow::data
