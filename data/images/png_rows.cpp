#include "data/images/png_rows.h"

#include <bit>
#include <cstring>

#include <fmt/format.h>

#include "data/error.h"

namespace duoflow::data {
namespace {

// The filters that look to the left wait for the pixel before: the samples of one pixel are computed side by side.
using Lanes = std::int16_t __attribute__((vector_size(16)));

using Bytes = std::uint8_t __attribute__((vector_size(8)));

// Through one integer in a register: parts copied into a vector in memory would stall its load.
template <std::size_t kBytes>
Lanes load(std::uint8_t const* from) {
  std::uint64_t bits = 0;
  if constexpr (kBytes == 4 || kBytes == 8) {
    std::memcpy(&bits, from, kBytes);
  } else {
    for (std::size_t i = 0; i < kBytes; ++i) { bits |= static_cast<std::uint64_t>(from[i]) << (8 * i); }
  }
  return __builtin_convertvector(std::bit_cast<Bytes>(bits), Lanes);
}
template <std::size_t kBytes>
void store(std::uint8_t* to, Lanes const& value) {
  auto const bits = std::bit_cast<std::uint64_t>(__builtin_convertvector(value, Bytes));
  if constexpr (kBytes == 4 || kBytes == 8) {
    std::memcpy(to, &bits, kBytes);
  } else {
    for (std::size_t i = 0; i < kBytes; ++i) { to[i] = static_cast<std::uint8_t>(bits >> (8 * i)); }
  }
}

Lanes magnitude(Lanes x) { return x < 0 ? -x : x; }

// The neighbour nearest to left + above - corner; ties in that order.
Lanes paeth(Lanes left, Lanes above, Lanes corner) {
  Lanes const across = above - corner, down = left - corner;
  Lanes const to_left = magnitude(across), to_above = magnitude(down), to_corner = magnitude(across + down);
  Lanes const second = to_above <= to_corner ? above : corner;
  return (to_left <= to_above) & (to_left <= to_corner) ? left : second;
}

enum Filter : std::uint8_t { kNone, kSub, kUp, kAverage, kPaeth };

// One row of pixels of kBytes each; `above` is the unfiltered row before it.
template <std::size_t kBytes>
void unfilter_row(std::uint8_t filter, std::uint8_t* row, std::uint8_t const* above, std::size_t row_bytes) {
  Lanes left{}, corner{};
  auto const each = [&](auto const& predicted) {
    for (std::size_t x = 0; x + kBytes <= row_bytes; x += kBytes) {
      Lanes const up = load<kBytes>(above + x);
      left = (load<kBytes>(row + x) + predicted(up)) & 255;
      corner = up;
      store<kBytes>(row + x, left);
    }
  };
  switch (filter) {
    case kSub: each([&](Lanes const&) { return left; }); break;
    case kAverage: each([&](Lanes const& up) { return (left + up) >> 1; }); break;
    case kPaeth: each([&](Lanes const& up) { return paeth(left, up, corner); }); break;
    default: break;
  }
}

// Samples of a row as 8-bit numbers; palette indices unscaled.
void unpack(std::uint8_t const* row, std::size_t count, int depth, bool scale, std::uint8_t* out) {
  if (depth == 8) {
    std::memcpy(out, row, count);
  } else if (depth == 16) {
    for (std::size_t i = 0; i < count; ++i) { out[i] = row[2 * i]; }
  } else {
    auto const per_byte = static_cast<std::size_t>(8 / depth);
    int const largest = (1 << depth) - 1, factor = scale ? 255 / largest : 1;
    for (std::size_t i = 0; i < count; ++i) {
      int const shift = 8 - depth * static_cast<int>(i % per_byte + 1);
      out[i] = static_cast<std::uint8_t>((row[i / per_byte] >> shift & largest) * factor);
    }
  }
}

// Whether pixel `at` of a row, as stored, is the transparent colour.
bool is_transparent(std::uint8_t const* row, std::size_t at, PngForm const& form) {
  for (std::size_t s = 0; s < static_cast<std::size_t>(form.samples); ++s) {
    auto const wanted = static_cast<unsigned>(static_cast<std::uint8_t>(form.transparent[2 * s])) << 8 | static_cast<std::uint8_t>(form.transparent[2 * s + 1]);
    std::size_t const sample = at * static_cast<std::size_t>(form.samples) + s;
    unsigned found = 0;
    if (form.depth == 16) {
      found = static_cast<unsigned>(row[2 * sample]) << 8 | row[2 * sample + 1];
    } else {
      auto const depth = static_cast<std::size_t>(form.depth);
      found = row[sample * depth / 8] >> (8 - depth - sample * depth % 8) & ((1U << depth) - 1);
    }
    if (found != wanted) { return false; }
  }
  return true;
}

void colour(std::uint8_t const* indices, std::size_t width, PngForm const& form, std::uint8_t* out) {
  auto const channels = static_cast<std::size_t>(form.channels());
  for (std::size_t x = 0; x < width; ++x, out += channels) {
    std::size_t const index = indices[x];
    if (3 * index >= form.colours.size()) {
      throw DataError(fmt::format("altered: a pixel has colour {} of a palette of {}", index, form.colours.size() / 3));
    }
    std::memcpy(out, form.colours.data() + 3 * index, 3);
    if (channels == 4) { out[3] = index < form.transparent.size() ? static_cast<std::uint8_t>(form.transparent[index]) : 255; }
  }
}

// Pixels of 1 to 4 samples to 3 or 4 channels.
void widen(std::uint8_t const* samples, std::uint8_t const* stored, std::size_t width, PngForm const& form, std::uint8_t* out) {
  auto const channels = static_cast<std::size_t>(form.channels()), count = static_cast<std::size_t>(form.samples);
  for (std::size_t x = 0; x < width; ++x, out += channels, samples += count) {
    for (std::size_t c = 0; c < 3; ++c) { out[c] = samples[count < 3 ? 0 : c]; }
    if (channels < 4) { continue; }
    bool const own_alpha = count == 2 || count == 4;
    out[3] = own_alpha ? samples[count - 1] : is_transparent(stored, x, form) ? 0 : 255;
  }
}

}  // namespace

void unfilter(std::uint8_t* rows, std::int64_t height, std::size_t row_bytes, std::size_t pixel_bytes) {
  std::vector<std::uint8_t> const nothing(row_bytes);
  std::uint8_t const* above = nothing.data();
  for (std::int64_t y = 0; y < height; ++y, rows += row_bytes + 1) {
    std::uint8_t* const row = rows + 1;
    if (*rows > kPaeth) { throw DataError(fmt::format("altered: row {} has filter {} (0 to 4 exist)", y, *rows)); }
    if (*rows == kUp) {
      for (std::size_t x = 0; x < row_bytes; ++x) { row[x] = static_cast<std::uint8_t>(row[x] + above[x]); }
    } else if (*rows != kNone) {
      switch (pixel_bytes) {
        case 1: unfilter_row<1>(*rows, row, above, row_bytes); break;
        case 2: unfilter_row<2>(*rows, row, above, row_bytes); break;
        case 3: unfilter_row<3>(*rows, row, above, row_bytes); break;
        case 4: unfilter_row<4>(*rows, row, above, row_bytes); break;
        case 6: unfilter_row<6>(*rows, row, above, row_bytes); break;
        default: unfilter_row<8>(*rows, row, above, row_bytes); break;
      }
    }
    above = row;
  }
}

std::vector<std::uint8_t> expand(std::uint8_t const* rows, std::int64_t height, std::int64_t width, PngForm const& form) {
  auto const columns = static_cast<std::size_t>(width), count = columns * static_cast<std::size_t>(form.samples);
  std::size_t const out_row = columns * static_cast<std::size_t>(form.channels());
  bool const as_stored = form.depth == 8 && form.samples == form.channels();
  std::vector<std::uint8_t> out(static_cast<std::size_t>(height) * out_row), samples(count);
  std::uint8_t* to = out.data();
  for (std::int64_t y = 0; y < height; ++y, rows += 1 + form.row_bytes(width), to += out_row) {
    if (as_stored) {
      std::memcpy(to, rows + 1, out_row);
      continue;
    }
    unpack(rows + 1, count, form.depth, !form.palette, samples.data());
    form.palette ? colour(samples.data(), columns, form, to) : widen(samples.data(), rows + 1, columns, form, to);
  }
  return out;
}

}  // namespace duoflow::data
