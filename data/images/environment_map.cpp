#include "data/images/environment_map.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <utility>

#include <fmt/format.h>

#include "data/error.h"

namespace duoflow::data {
namespace {

constexpr double kPi = std::numbers::pi;
using Vector = std::array<double, 3>;

void check(ImageF const& map) {
  if (map.height <= 0 || map.width <= 0 || map.pixels.size() != static_cast<std::size_t>(3 * map.height * map.width)) {
    throw DataError(fmt::format("a light map of {} x {} has {} numbers (3 per pixel are needed, sizes must be positive), pass a whole map", map.height,
                                map.width, map.pixels.size()));
  }
}

void check_size(std::int64_t height, std::int64_t width) {
  if (height <= 0 || width <= 0) { throw DataError(fmt::format("a light map of {} x {} was asked for (sizes must be positive), choose another", height, width)); }
}

ImageF blank(std::int64_t height, std::int64_t width) {
  return {height, width, std::vector<float>(static_cast<std::size_t>(3 * height * width))};
}

Vector direction_of(std::int64_t row, std::int64_t column, std::int64_t height, std::int64_t width) {
  double const theta = kPi * (static_cast<double>(row) + 0.5) / static_cast<double>(height);
  double const phi = kPi - 2 * kPi * (static_cast<double>(column) + 0.5) / static_cast<double>(width);
  return {std::sin(theta) * std::cos(phi), std::sin(theta) * std::sin(phi), std::cos(theta)};
}

Vector look_up(ImageF const& map, Vector const& d) {
  double const x = (0.5 - std::atan2(d[1], d[0]) / (2 * kPi)) * static_cast<double>(map.width) - 0.5;
  double const y = std::acos(std::clamp(d[2], -1.0, 1.0)) / kPi * static_cast<double>(map.height) - 0.5;
  double const left = std::floor(x), above = std::floor(y);
  double const fx = x - left, fy = y - above;
  Vector out{};
  for (int corner = 0; corner < 4; ++corner) {
    int const right = corner & 1, below = corner >> 1;
    std::int64_t const column = ((static_cast<std::int64_t>(left) + right) % map.width + map.width) % map.width;
    std::int64_t const row = std::clamp<std::int64_t>(static_cast<std::int64_t>(above) + below, 0, map.height - 1);
    double const weight = (right != 0 ? fx : 1 - fx) * (below != 0 ? fy : 1 - fy);
    float const* const pixel = map.pixels.data() + 3 * (row * map.width + column);
    for (std::size_t c = 0; c < 3; ++c) { out[c] += weight * static_cast<double>(pixel[c]); }
  }
  return out;
}

// A map whose value towards pixel direction d is the source's value towards turn(d).
template <class Turn>
ImageF turned(ImageF const& map, std::int64_t height, std::int64_t width, Turn const& turn) {
  ImageF out = blank(height, width);
  float* to = out.pixels.data();
  for (std::int64_t row = 0; row < height; ++row) {
    for (std::int64_t column = 0; column < width; ++column) {
      for (double const value : look_up(map, turn(direction_of(row, column, height, width)))) { *to++ = static_cast<float>(value); }
    }
  }
  return out;
}

// One axis of a resize: what each output line is made of. Weights sum to 1.
struct Line {
  std::vector<std::pair<std::int64_t, double>> parts;
};
enum class Axis { polar, azimuth };

std::vector<Line> make_lines(std::int64_t in, std::int64_t out, Axis axis) {
  std::vector<Line> lines(static_cast<std::size_t>(out));
  double const ratio = static_cast<double>(in) / static_cast<double>(out);
  for (std::int64_t i = 0; i < out; ++i) {
    auto& parts = lines[static_cast<std::size_t>(i)].parts;
    if (out >= in) {  // bilinear
      double const at = (static_cast<double>(i) + 0.5) * ratio - 0.5;
      auto const first = static_cast<std::int64_t>(std::floor(at));
      double const fraction = at - std::floor(at);
      for (std::int64_t const k : {first, first + 1}) {
        std::int64_t const line = axis == Axis::azimuth ? (k + in) % in : std::clamp<std::int64_t>(k, 0, in - 1);
        parts.emplace_back(line, k == first ? 1 - fraction : fraction);
      }
      continue;
    }
    double const begin = static_cast<double>(i) * ratio, end = static_cast<double>(i + 1) * ratio;
    double sum = 0;
    for (auto k = static_cast<std::int64_t>(begin); k < in && static_cast<double>(k) < end; ++k) {
      double const low = std::max(begin, static_cast<double>(k)), high = std::min(end, static_cast<double>(k + 1));
      double const step = kPi / static_cast<double>(in);
      double const weight = axis == Axis::azimuth ? high - low : std::cos(low * step) - std::cos(high * step);  // solid angle of the overlap
      parts.emplace_back(k, weight);
      sum += weight;
    }
    for (auto& part : parts) { part.second /= sum; }
  }
  return lines;
}

double luminance(float const* rgb) {  // Rec. 709
  return 0.2126 * static_cast<double>(rgb[0]) + 0.7152 * static_cast<double>(rgb[1]) + 0.0722 * static_cast<double>(rgb[2]);
}

}  // namespace

std::array<float, 3> map_direction(std::int64_t row, std::int64_t column, std::int64_t height, std::int64_t width) {
  Vector const d = direction_of(row, column, height, width);
  return {static_cast<float>(d[0]), static_cast<float>(d[1]), static_cast<float>(d[2])};
}

std::array<float, 3> map_lookup(ImageF const& map, std::array<float, 3> const& direction) {
  check(map);
  Vector const value = look_up(map, {direction[0], direction[1], direction[2]});
  return {static_cast<float>(value[0]), static_cast<float>(value[1]), static_cast<float>(value[2])};
}

ImageF resize_map(ImageF const& map, std::int64_t height, std::int64_t width) {
  check(map);
  check_size(height, width);
  if (height == map.height && width == map.width) { return map; }
  auto const rows = make_lines(map.height, height, Axis::polar), columns = make_lines(map.width, width, Axis::azimuth);
  ImageF out = blank(height, width);
  std::vector<double> line(static_cast<std::size_t>(3 * map.width));
  float* to = out.pixels.data();
  for (Line const& row : rows) {
    std::fill(line.begin(), line.end(), 0.0);
    for (auto const& [source, weight] : row.parts) {
      float const* const from = map.pixels.data() + 3 * source * map.width;
      for (std::size_t x = 0; x < line.size(); ++x) { line[x] += weight * static_cast<double>(from[x]); }
    }
    for (Line const& column : columns) {
      for (std::size_t c = 0; c < 3; ++c) {
        double sum = 0;
        for (auto const& [source, weight] : column.parts) { sum += weight * line[3 * static_cast<std::size_t>(source) + c]; }
        *to++ = static_cast<float>(sum);
      }
    }
  }
  return out;
}

ImageF rotate_map(ImageF const& map, std::array<float, 9> const& rotation) {
  check(map);
  auto const turn = [&](Vector const& d) {
    Vector out{};
    for (std::size_t i = 0; i < 9; ++i) { out[i / 3] += static_cast<double>(rotation[i]) * d[i % 3]; }
    return out;
  };
  return turned(map, map.height, map.width, turn);
}

float mean_luminance(ImageF const& map) {
  check(map);
  double sum = 0;
  double const step = kPi / static_cast<double>(map.height);
  for (std::int64_t row = 0; row < map.height; ++row) {
    double line = 0;
    for (std::int64_t column = 0; column < map.width; ++column) { line += luminance(map.pixels.data() + 3 * (row * map.width + column)); }
    sum += line * (std::cos(static_cast<double>(row) * step) - std::cos(static_cast<double>(row + 1) * step));
  }
  return static_cast<float>(sum / (2 * static_cast<double>(map.width)));
}

ImageF camera_map_to_world(ImageF const& map, float const* c2w, std::int64_t height, std::int64_t width) {
  check(map);
  check_size(height, width);
  auto const turn = [&](Vector const& d) {
    Vector camera{};  // R^T d
    for (std::size_t i = 0; i < 9; ++i) { camera[i % 3] += static_cast<double>(c2w[4 * (i / 3) + i % 3]) * d[i / 3]; }
    return Vector{camera[0], camera[2], -camera[1]};  // the map's centre is the camera's right, its left quarter line forward, its top up
  };
  // Turned at the source's resolution first: point samples of a smaller grid would miss small lights.
  return resize_map(turned(map, std::max(height, map.height), std::max(width, map.width), turn), height, width);
}

namespace {

// 8-bit codes were truncated, so a value lies half a step above its code on average; the largest code is the maximum itself.
double log_code(std::uint8_t code) { return code == 255 ? 1.0 : code == 0 ? 0.0 : (code + 0.5) / 255; }
double ldr_value(std::uint8_t code) { return code == 0 ? 0.0 : std::pow((code + 0.5) / 255, 2.2); }

// max log1p(10 x) of the map, which the log picture was divided by.
double fitted_log_scale(Image8 const& ldr, Image8 const& log_map) {
  double products = 0, squares = 0, least = 0;
  for (std::size_t i = 0; i < ldr.pixels.size(); ++i) {
    double const code = log_code(log_map.pixels[i]);
    if (code == 0.0 || ldr.pixels[i] == 0) { continue; }
    if (ldr.pixels[i] < 255) {
      products += code * std::log1p(10 * ldr_value(ldr.pixels[i]));
      squares += code * code;
    } else {
      least = std::max(least, std::log1p(10.0) / code);  // clipped means at least 1
    }
  }
  // Nothing to fit (a uniform bright map): the smallest scale at which every clipped value reaches 1.
  return squares > 0 ? products / squares : least;
}

}  // namespace

ImageF recover_linear(Image8 const& ldr, Image8 const& log_map) {
  if (ldr.height != log_map.height || ldr.width != log_map.width || ldr.channels != 3 || log_map.channels != 3 || ldr.height <= 0 || ldr.width <= 0) {
    throw DataError(fmt::format("an LDR map of {} x {} x {} goes with a log map of {} x {} x {} (both must be the same size with 3 channels), render "
                                "the pair again",
                                ldr.height, ldr.width, ldr.channels, log_map.height, log_map.width, log_map.channels));
  }
  double const scale = fitted_log_scale(ldr, log_map);
  ImageF out = blank(ldr.height, ldr.width);
  for (std::size_t i = 0; i < out.pixels.size(); ++i) {
    // The LDR code is the finer of the two wherever it is not clipped.
    double const value = ldr.pixels[i] < 255 ? ldr_value(ldr.pixels[i]) : std::max(1.0, std::expm1(scale * log_code(log_map.pixels[i])) / 10);
    out.pixels[i] = static_cast<float>(value);
  }
  return out;
}

EncodedMap encode_pair(ImageF const& linear) {
  check(linear);
  double largest = 0;
  for (float const value : linear.pixels) { largest = std::max(largest, static_cast<double>(value)); }
  double const scale = std::log1p(10 * largest);
  Image8 const empty{linear.height, linear.width, 3, std::vector<std::uint8_t>(linear.pixels.size())};
  EncodedMap out{empty, empty};
  for (std::size_t i = 0; i < linear.pixels.size(); ++i) {
    double const value = std::max(0.0, static_cast<double>(linear.pixels[i]));
    out.ldr.pixels[i] = static_cast<std::uint8_t>(255 * std::pow(std::min(value, 1.0), 1 / 2.2));
    if (scale > 0) { out.log_map.pixels[i] = static_cast<std::uint8_t>(255 * (std::log1p(10 * value) / scale)); }
  }
  return out;
}

std::uint16_t to_half(float value) {
  std::uint32_t const bits = std::bit_cast<std::uint32_t>(value);
  std::uint32_t const sign = bits >> 16 & 0x8000U;
  if (std::isnan(value)) { return static_cast<std::uint16_t>(sign | 0x7e00U); }
  float const magnitude = std::min(std::abs(value), 65504.0F);
  std::uint32_t half = 0;
  if (magnitude < 0x1p-14F) {  // subnormal: multiples of 2^-24
    half = static_cast<std::uint32_t>(std::nearbyint(magnitude * 0x1p24F));
  } else {
    std::uint32_t const m = std::bit_cast<std::uint32_t>(magnitude);
    half = (m + 0xfffU + (m >> 13 & 1U)) >> 13;  // to nearest, ties to even
    half -= (127U - 15U) << 10;
    half = std::min(half, 0x7bffU);
  }
  return static_cast<std::uint16_t>(sign | half);
}

float from_half(std::uint16_t bits) {
  std::uint32_t const sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  std::uint32_t const exponent = bits >> 10 & 31U, mantissa = bits & 0x3ffU;
  if (exponent == 0) {
    float const value = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  std::uint32_t const wide = exponent == 31 ? 255U : exponent + 127U - 15U;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

}  // namespace duoflow::data
