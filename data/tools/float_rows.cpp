#include "data/tools/float_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "data/images/environment_map.h"
#include "data/error.h"

namespace duoflow::data {
namespace {

// What rounds to an infinity: halfway between the largest number and the next power of two.
constexpr float kBeyondHalf = 65520.0F;

template <class Bits, class Convert>
std::vector<float> each_wide(std::byte const* numbers, std::size_t count, Convert const& convert) {
  std::vector<float> result(count);
  for (std::size_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, numbers + i * sizeof(Bits), sizeof(Bits));
    result[i] = convert(bits);
  }
  return result;
}

template <class Bits, class Convert>
std::vector<std::byte> each_narrow(std::vector<float> const& numbers, Convert const& convert) {
  std::vector<std::byte> result(numbers.size() * sizeof(Bits));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    Bits const bits = convert(numbers[i]);
    std::memcpy(result.data() + i * sizeof(Bits), &bits, sizeof(Bits));
  }
  return result;
}

[[noreturn]] void refuse_type(DType dtype) {
  throw DataError(fmt::format("latents are f32, f16 or bf16 (found {}), convert them", to_string(dtype)));
}

bool fits(DType to, float value) {
  if (!std::isfinite(value)) return false;
  if (to == DType::f16) return std::abs(value) < kBeyondHalf;
  return to != DType::bf16 || std::isfinite(from_bf16(to_bf16(value)));
}

// The bits of the largest magnitude; those of NaN are beyond those of an infinity.
float largest(std::vector<float> const& numbers) {
  std::uint32_t most = 0;
  for (float const value : numbers) most = std::max(most, std::bit_cast<std::uint32_t>(value) & 0x7fffffffU);
  return std::bit_cast<float>(most);
}

[[noreturn]] void refuse_number(DType to, std::vector<float> const& numbers, std::string const& where) {
  auto const bad = std::find_if_not(numbers.begin(), numbers.end(), [&](float value) { return fits(to, value); });
  auto const at = bad - numbers.begin();
  if (!std::isfinite(*bad))
    throw DataError(
        fmt::format("{} number {} is {} (training on it would spoil the model), make that row again or leave it out",
                    where, at, *bad));
  throw DataError(
      fmt::format("{} number {} is {} (beyond the largest {}), store another type", where, at, *bad, to_string(to)));
}

}  // namespace

void require_fitting(DType to, std::vector<float> const& numbers, std::string const& where) {
  if (!fits(to, largest(numbers))) refuse_number(to, numbers, where);
}

float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

std::uint16_t to_bf16(float value) {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40U);  // rounding could make it an infinity
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

std::vector<float> widen(DType from, std::byte const* numbers, std::size_t count) {
  switch (from) {
    case DType::f32:
      return each_wide<float>(numbers, count, [](float value) { return value; });
    case DType::f16:
      return each_wide<std::uint16_t>(numbers, count, [](std::uint16_t bits) { return from_half(bits); });
    case DType::bf16:
      return each_wide<std::uint16_t>(numbers, count, [](std::uint16_t bits) { return from_bf16(bits); });
    default:
      refuse_type(from);
  }
}

std::vector<std::byte> narrow(DType to, std::vector<float> const& numbers, std::string const& where) {
  require_fitting(to, numbers, where);
  switch (to) {
    case DType::f32:
      return each_narrow<float>(numbers, [](float value) { return value; });
    case DType::f16:
      return each_narrow<std::uint16_t>(numbers, [](float value) { return to_half(value); });
    case DType::bf16:
      return each_narrow<std::uint16_t>(numbers, [](float value) { return to_bf16(value); });
    default:
      refuse_type(to);
  }
}

LatentStatistics::LatentStatistics(std::int64_t dim)
    : sum_(static_cast<std::size_t>(dim), 0), squares_(static_cast<std::size_t>(dim), 0) {}

void LatentStatistics::add(std::vector<float> const& row) {
  auto const dim = sum_.size();
  if (pivot_.empty() && row.size() >= dim) pivot_.assign(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(dim));
  for (std::size_t token = 0; token + dim <= row.size(); token += dim) {
    for (std::size_t i = 0; i < dim; ++i) {
      double const d = static_cast<double>(row[token + i]) - pivot_[i];
      sum_[i] += d;
      squares_[i] += d * d;
    }
    tokens_ += 1;
  }
}

std::vector<float> LatentStatistics::mean() const {
  std::vector<float> result;
  for (std::size_t i = 0; i < pivot_.size(); ++i) result.push_back(static_cast<float>(pivot_[i] + sum_[i] / tokens_));
  return result;
}

std::vector<float> LatentStatistics::deviation() const {
  std::vector<float> result;
  for (std::size_t i = 0; i < pivot_.size(); ++i) {
    double const offset = sum_[i] / tokens_;
    result.push_back(static_cast<float>(std::sqrt(std::max(squares_[i] / tokens_ - offset * offset, 1e-12))));
  }
  return result;
}

}  // namespace duoflow::data
