#pragma once
// Well-spread points in the unit square: the first two dimensions of Sobol's sequence with hash-based Owen scrambling.
// Every aligned block of 2^k consecutive indices is stratified; different keys give independent pairings, so one
// sequence per path vertex can be used next to the others.

#include <array>
#include <cstdint>

#include "data/synth/keyed_random.h"

namespace duoflow::data {

inline constexpr std::uint32_t kSamplePoints = 1U << 16;  // of one sequence; indices wrap

namespace detail {

inline std::uint32_t reverse_bits(std::uint32_t x) {
  x = __builtin_bswap32(x);
  x = ((x & 0x0F0F0F0FU) << 4) | ((x >> 4) & 0x0F0F0F0FU);
  x = ((x & 0x33333333U) << 2) | ((x >> 2) & 0x33333333U);
  return ((x & 0x55555555U) << 1) | ((x >> 1) & 0x55555555U);
}

// A permutation in which each bit depends on the bits above it only (Owen's nested scrambling). Between the two reversals
// a bit may only look at lower ones: additions and products with even numbers keep to that.
inline std::uint32_t nested_scramble(std::uint32_t x, std::uint32_t key) {
  x = reverse_bits(x) + key;
  x ^= x * ((key >> 16) | 1U) << 1;
  x ^= x * 0x9C1B7A36U;
  x ^= x * 0xD05E4F8AU;
  x ^= x * 0x5A7F3B64U;
  return reverse_bits(x);
}

// Entry [byte][value]: the second dimension's contribution of one index byte (the two low bytes suffice).
inline std::array<std::array<std::uint32_t, 256>, 2> make_second_dimension() {
  std::array<std::array<std::uint32_t, 256>, 2> table{};
  std::uint32_t direction = 1U << 31;
  for (std::uint32_t bit = 0; bit < 16; ++bit, direction ^= direction >> 1) {
    for (std::uint32_t value = 0; value < 256; ++value) {
      if ((value >> (bit % 8)) & 1U) {
        table[bit / 8][value] ^= direction;
      }
    }
  }
  return table;
}
inline auto const second_dimension = make_second_dimension();

}  // namespace detail

struct Point2 {
  float x = 0, y = 0;
};

inline Point2 sample_point(std::uint64_t key, std::uint32_t index) {
  auto const low = static_cast<std::uint32_t>(key), high = static_cast<std::uint32_t>(key >> 32);
  std::uint32_t const i = detail::nested_scramble(index << 16, low ^ high) >> 16;
  std::uint32_t const x = detail::nested_scramble(detail::reverse_bits(i), low);
  std::uint32_t const y = detail::nested_scramble(detail::second_dimension[0][i & 255U] ^ detail::second_dimension[1][i >> 8], high);
  return {static_cast<float>(x >> 8) * 0x1p-24F, static_cast<float>(y >> 8) * 0x1p-24F};
}

}  // namespace duoflow::data
