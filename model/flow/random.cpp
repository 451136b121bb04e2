#include "model/flow/random.h"

#include <cmath>
#include <numbers>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace duoflow::model {

namespace {

using Block = std::array<std::uint32_t, 4>;

std::uint32_t low(std::uint64_t x) { return static_cast<std::uint32_t>(x); }
std::uint32_t high(std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); }

Block block_at(std::uint64_t seed, std::uint64_t position, Stream stream, std::uint64_t index) {
  std::uint32_t const last = high(position) | static_cast<std::uint32_t>(stream) << 24;
  return philox4x32_10({low(index), high(index), low(position), last}, {low(seed), high(seed)});
}

// 52 random bits and a half: the 53 significant bits of a double are used up, so nothing rounds to 0 or 1.
double open_unit(std::uint32_t hi, std::uint32_t lo) {
  std::uint64_t const bits = (std::uint64_t{hi} << 32 | lo) >> 12;
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

// Box-Muller: both normals of one block.
std::pair<double, double> normal_pair(Block const& block) {
  double const radius = std::sqrt(-2.0 * std::log(open_unit(block[1], block[0])));
  double const angle = 2.0 * std::numbers::pi * open_unit(block[3], block[2]);
  return {radius * std::cos(angle), radius * std::sin(angle)};
}

}  // namespace

// Constants of the Random123 paper (multipliers chosen by its avalanche search, Weyl key increments from the golden
// ratio and sqrt(3)-1).
std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const product0 = std::uint64_t{0xD2511F53} * counter[0];
    std::uint64_t const product1 = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {high(product1) ^ counter[1] ^ key[0], low(product1), high(product0) ^ counter[3] ^ key[1],
               low(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

double uniform01(std::uint64_t seed, std::uint64_t position, Stream stream, std::uint64_t counter) {
  Block const block = block_at(seed, position, stream, counter);
  return open_unit(block[1], block[0]);
}

double standard_normal(std::uint64_t seed, std::uint64_t position, Stream stream, std::uint64_t counter) {
  auto const [even, odd] = normal_pair(block_at(seed, position, stream, counter / 2));
  return counter % 2 == 0 ? even : odd;
}

at::Tensor normal_tensor(std::vector<std::int64_t> const& shape, std::uint64_t seed, std::uint64_t position,
                         Stream stream) {
  at::Tensor result = at::empty(shape, at::kFloat);
  float* const out = result.data_ptr<float>();
  std::int64_t const count = result.numel();
  // The thread count does not show in the values: each depends on its index alone.
  at::parallel_for(0, (count + 1) / 2, 4096, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t pair = begin; pair < end; ++pair) {
      auto const [even, odd] = normal_pair(block_at(seed, position, stream, static_cast<std::uint64_t>(pair)));
      out[2 * pair] = static_cast<float>(even);
      if (2 * pair + 1 < count) out[2 * pair + 1] = static_cast<float>(odd);
    }
  });
  return result;
}

}  // namespace duoflow::model
