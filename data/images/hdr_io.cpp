// Radiance HDR (RGBE), the old and the new run lengths and plain pixels, as Ward's "Real Pixels" and the RADIANCE file formats
// document them. Rows from the top, columns from the left (-Y h +X w), the only orientation writers use.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>

#include "data/images/colour_space.h"
#include "data/error.h"
#include "data/images/linear_picture.h"

namespace duoflow::data {
namespace {

constexpr std::int64_t kMostPixels = std::int64_t{1} << 28;  // 16384 x 16384
constexpr std::int64_t kLongestSide = std::int64_t{1} << 16;
// The new run lengths have 127 pixels in 8 bytes. The old ones have no limit, but no renderer repeats a pixel that often; where
// that is not much memory it is left to the decoder to find out.
constexpr std::int64_t kMostPixelsPerByte = 1024, kFewPixels = std::int64_t{1} << 20;
using Rgbe = std::array<std::uint8_t, 4>;

class Input {
 public:
  explicit Input(std::string_view bytes) : bytes_(bytes) {}
  std::string_view line() {
    auto const end = bytes_.find('\n', at_);
    if (end == std::string_view::npos) { throw DataError("cut short: its header has no end"); }
    auto const out = bytes_.substr(at_, end - at_);
    at_ = end + 1;
    return out;
  }
  std::int64_t left() const { return static_cast<std::int64_t>(bytes_.size() - at_); }
  std::uint8_t byte() {
    if (at_ == bytes_.size()) { throw DataError(fmt::format("cut short: its {} bytes end before its last row", bytes_.size())); }
    return static_cast<std::uint8_t>(bytes_[at_++]);
  }
  Rgbe pixel() { return {byte(), byte(), byte(), byte()}; }

 private:
  std::string_view bytes_;
  std::size_t at_ = 0;
};

struct Header {
  std::int64_t height = 0, width = 0;
  double exposure = 1;  // radiance = pixel / exposure
  std::string colour_problem;
};

double value_of(std::string_view line) {
  auto const text = std::string(line.substr(line.find('=') + 1));
  double const value = std::strtod(text.c_str(), nullptr);
  if (!(value > 0) || !std::isfinite(value)) { throw DataError(fmt::format("its header says '{}' (a positive number is needed)", line)); }
  return value;
}

std::vector<double> numbers_of(std::string_view line) {
  std::string const text(line.substr(line.find('=') + 1));
  std::vector<double> out;
  char const* at = text.c_str();
  for (char* end = nullptr;; at = end) {
    double const value = std::strtod(at, &end);
    if (end == at) { return out; }
    out.push_back(value);
  }
}

Header read_header(Input& input) {
  Header header;
  input.line();  // "#?RADIANCE"
  for (std::string_view line = input.line(); !line.empty() && line != "\r"; line = input.line()) {
    if (line.starts_with("FORMAT=") && !line.starts_with("FORMAT=32-bit_rle_rgbe")) {
      throw DataError(fmt::format("its pixels are '{}' (32-bit_rle_rgbe is needed), save it as RGB", line.substr(7)));
    }
    if (line.starts_with("EXPOSURE=")) { header.exposure *= value_of(line); }
    if (line.starts_with("PRIMARIES=") && !is_rec709(numbers_of(line))) { header.colour_problem = fmt::format("its header says {}", line); }
  }
  std::string const size(input.line());
  long height = 0, width = 0;
  if (std::sscanf(size.c_str(), "-Y %ld +X %ld", &height, &width) != 2) {
    throw DataError(fmt::format("its rows are ordered '{}' (-Y height +X width is needed), save it upright", size));
  }
  bool const possible = height > 0 && width > 0 && height <= kLongestSide && width <= kLongestSide && width * height <= kMostPixels;
  if (!possible || (width * height > kFewPixels && width * height / kMostPixelsPerByte > input.left())) { throw DataError(fmt::format("its header says {} x {} pixels (it has {} bytes for them)", height, width, input.left())); }
  header.height = height;
  header.width = width;
  return header;
}

// Four planes, each in runs (above 128: that many less 128 of one value) and literals.
void read_planes(Input& input, std::vector<Rgbe>& row) {
  for (std::size_t plane = 0; plane < 4; ++plane) {
    for (std::size_t x = 0; x < row.size();) {
      std::size_t count = input.byte();
      bool const run = count > 128;
      if (run) { count -= 128; }
      if (count == 0 || count > row.size() - x) { throw DataError(fmt::format("damaged: a run of {} pixels where {} are left in the row", count, row.size() - x)); }
      std::uint8_t value = run ? input.byte() : std::uint8_t{0};
      for (; count > 0; --count) { row[x++][plane] = run ? value : input.byte(); }
    }
  }
}

// Whole pixels; (1, 1, 1, n) repeats the one before n times, and once more in a row counts 256 times as much.
void read_pixels(Input& input, std::vector<Rgbe>& row, Rgbe first) {
  std::size_t x = 0;
  int shift = 0;
  for (Rgbe pixel = first;; pixel = input.pixel()) {
    if (pixel[0] == 1 && pixel[1] == 1 && pixel[2] == 1 && x > 0) {
      std::size_t const count = static_cast<std::size_t>(pixel[3]) << shift;
      if (count > row.size() - x) { throw DataError(fmt::format("damaged: a run of {} pixels where {} are left in the row", count, row.size() - x)); }
      for (std::size_t i = 0; i < count; ++i, ++x) { row[x] = row[x - 1]; }
      shift = std::min(shift + 8, 24);
    } else {
      row[x++] = pixel;
      shift = 0;
    }
    if (x == row.size()) { return; }
  }
}

void read_row(Input& input, std::vector<Rgbe>& row) {
  Rgbe const first = input.pixel();
  bool const planes = first[0] == 2 && first[1] == 2 && first[2] < 128 && row.size() >= 8 && row.size() < 32768;
  if (!planes) { return read_pixels(input, row, first); }
  std::size_t const width = static_cast<std::size_t>(first[2]) << 8 | first[3];
  if (width != row.size()) { throw DataError(fmt::format("damaged: a row says {} pixels, the header {}", width, row.size())); }
  read_planes(input, row);
}

}  // namespace

LinearPicture decode_hdr(std::string const& bytes) {
  Input input(bytes);
  Header const header = read_header(input);
  LinearPicture out;
  out.colour = {header.height, header.width, {}};
  out.colour.pixels.reserve(static_cast<std::size_t>(3 * header.height * header.width));
  out.colour_problem = header.colour_problem;
  std::vector<Rgbe> row(static_cast<std::size_t>(header.width));
  for (std::int64_t y = 0; y < header.height; ++y) {
    read_row(input, row);
    for (Rgbe const& pixel : row) {
      // Zero exponent: black. The mantissa's middle (+0.5) is left out, as most readers do.
      double const scale = pixel[3] == 0 ? 0.0 : std::ldexp(1.0, pixel[3] - (128 + 8)) / header.exposure;
      for (std::size_t c = 0; c < 3; ++c) { out.colour.pixels.push_back(static_cast<float>(pixel[c] * scale)); }
    }
  }
  return out;
}

}  // namespace duoflow::data
