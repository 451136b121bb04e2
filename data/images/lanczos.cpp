// Pillow's Image.resize(LANCZOS) on 8-bit pictures, bit for bit: weights in double, rounded to 22 fractional bits, a
// horizontal and a vertical pass with bytes between them. RGBA goes through premultiplied colour, as Pillow does it.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

#include <fmt/format.h>

#include "data/error.h"
#include "data/images/image_io.h"

namespace duoflow::data {
namespace {

constexpr int kPrecisionBits = 22;  // 32 - 8 - 2: a sum of 8-bit values times weights stays in 32 bits
constexpr double kSupport = 3.0;    // Lanczos-3

// The source pixels one output pixel is made of, with fixed-point weights.
struct Tap {
  std::size_t first = 0;
  std::vector<int> weights;
};

double sinc(double x) {
  if (x == 0.0) { return 1.0; }
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) { return -kSupport <= x && x < kSupport ? sinc(x) * sinc(x / kSupport) : 0.0; }

std::vector<Tap> make_taps(std::int64_t in, std::int64_t out) {
  double const scale = static_cast<double>(in) / static_cast<double>(out);
  double const filter_scale = std::max(scale, 1.0);
  double const support = kSupport * filter_scale;
  std::vector<Tap> taps(static_cast<std::size_t>(out));
  std::vector<double> weights;
  for (std::int64_t i = 0; i < out; ++i) {
    double const centre = (static_cast<double>(i) + 0.5) * scale;
    std::int64_t const first = std::max<std::int64_t>(static_cast<std::int64_t>(centre - support + 0.5), 0);
    std::int64_t const last = std::min<std::int64_t>(static_cast<std::int64_t>(centre + support + 0.5), in);
    double sum = 0;
    weights.clear();
    for (std::int64_t x = first; x < last; ++x) {
      weights.push_back(lanczos((static_cast<double>(x) - centre + 0.5) * (1.0 / filter_scale)));
      sum += weights.back();
    }
    Tap& tap = taps[static_cast<std::size_t>(i)];
    tap.first = static_cast<std::size_t>(first);
    for (double weight : weights) {
      if (sum != 0.0) { weight /= sum; }
      tap.weights.push_back(static_cast<int>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kPrecisionBits)));
    }
  }
  return taps;
}

std::uint8_t clip8(int sum) { return static_cast<std::uint8_t>(std::clamp(sum >> kPrecisionBits, 0, 255)); }

// The same integers with wider registers where the processor has them.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define DUOFLOW_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define DUOFLOW_WIDE
#endif

// A column of two rows, up to four channels each: one weight serves eight sums.
using Column = std::int32_t __attribute__((vector_size(32)));

DUOFLOW_WIDE void resize_two_rows(Column const* line, std::vector<Tap> const& taps, std::size_t channels, std::uint8_t* upper, std::uint8_t* lower) {
  for (Tap const& tap : taps) {
    Column sums = Column{} + (1 << (kPrecisionBits - 1));
    Column const* from = line + tap.first;
    for (int const weight : tap.weights) { sums += *from++ * weight; }
    for (std::size_t c = 0; c < channels; ++c) {
      *upper++ = clip8(sums[c]);
      *lower++ = clip8(sums[4 + c]);
    }
  }
}

Image8 resize_rows(Image8 const& image, std::int64_t width) {  // horizontal pass
  auto const taps = make_taps(image.width, width);
  auto const channels = static_cast<std::size_t>(image.channels), columns = static_cast<std::size_t>(image.width);
  std::size_t const line = columns * channels, out_line = static_cast<std::size_t>(width) * channels, rows = static_cast<std::size_t>(image.height);
  Image8 out{image.height, width, image.channels, {}};
  out.pixels.resize(rows * out_line);
  std::vector<Column> widened(columns);  // each column is used by several taps: widened once
  for (std::size_t row = 0; row < rows; row += 2) {
    std::size_t const second = std::min(row + 1, rows - 1);  // the last of an odd number is done twice
    std::uint8_t const *upper = image.pixels.data() + row * line, *lower = image.pixels.data() + second * line;
    for (Column& column : widened) {
      for (std::size_t c = 0; c < channels; ++c) {
        column[c] = *upper++;
        column[4 + c] = *lower++;
      }
    }
    resize_two_rows(widened.data(), taps, channels, out.pixels.data() + row * out_line, out.pixels.data() + second * out_line);
  }
  return out;
}

DUOFLOW_WIDE void add_weighted(int* sums, std::uint8_t const* line, std::size_t count, int weight) {
  for (std::size_t x = 0; x < count; ++x) { sums[x] += line[x] * weight; }
}

Image8 resize_columns(Image8 const& image, std::int64_t height) {  // vertical pass
  auto const taps = make_taps(image.height, height);
  auto const line = static_cast<std::size_t>(image.width * image.channels);
  Image8 out{height, image.width, image.channels, {}};
  out.pixels.resize(static_cast<std::size_t>(height) * line);
  std::vector<int> sums(line);
  for (std::size_t row = 0; row < taps.size(); ++row) {
    std::fill(sums.begin(), sums.end(), 1 << (kPrecisionBits - 1));
    std::uint8_t const* from = image.pixels.data() + taps[row].first * line;
    for (int const weight : taps[row].weights) {
      add_weighted(sums.data(), from, line, weight);
      from += line;
    }
    std::transform(sums.begin(), sums.end(), out.pixels.begin() + static_cast<std::ptrdiff_t>(row * line), clip8);
  }
  return out;
}

void premultiply(Image8& rgba) {
  for (std::size_t i = 0; i < rgba.pixels.size(); i += 4) {
    unsigned const alpha = rgba.pixels[i + 3];
    if (alpha == 255) { continue; }        // most pixels: the formula would give them back
    for (std::size_t c = 0; c < 3; ++c) {  // a * b / 255, rounded
      unsigned const product = rgba.pixels[i + c] * alpha + 128;
      rgba.pixels[i + c] = static_cast<std::uint8_t>((product + (product >> 8)) >> 8);
    }
  }
}

void divide_by_alpha(Image8& rgba) {
  for (std::size_t i = 0; i < rgba.pixels.size(); i += 4) {
    unsigned const alpha = rgba.pixels[i + 3];
    if (alpha == 0 || alpha == 255) { continue; }
    for (std::size_t c = 0; c < 3; ++c) { rgba.pixels[i + c] = static_cast<std::uint8_t>(std::min(255U * rgba.pixels[i + c] / alpha, 255U)); }
  }
}

// Pillow 13 starts with the pass that saves work where the height loses more than twice what the width does; earlier
// versions always start with the horizontal one. The two orders differ by the rounding between the passes.
bool vertical_first(Image8 const& image, std::int64_t height, std::int64_t width) {
  std::int64_t const lost = image.height - height;
  return lost > 0 && lost > 2 * (image.width - width);
}

}  // namespace

Image8 resize_lanczos(Image8 const& image, std::int64_t height, std::int64_t width) {
  if (height <= 0 || width <= 0 || image.height <= 0 || image.width <= 0) {
    throw DataError(fmt::format("cannot resize {} x {} to {} x {} (sizes must be positive), choose a size of at least 1", image.height, image.width,
                                height, width));
  }
  if (height == image.height && width == image.width) { return image; }
  Image8 out = image;
  bool const has_alpha = image.channels == 4;
  if (has_alpha) { premultiply(out); }
  bool const rows_last = vertical_first(image, height, width);
  if (width != out.width && !rows_last) { out = resize_rows(out, width); }
  if (height != out.height) { out = resize_columns(out, height); }
  if (width != out.width) { out = resize_rows(out, width); }
  if (has_alpha) { divide_by_alpha(out); }
  return out;
}

}  // namespace duoflow::data
