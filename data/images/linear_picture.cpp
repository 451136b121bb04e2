#include "data/images/linear_picture.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <fmt/format.h>

#include "data/error.h"
#include "data/images/image_format.h"

namespace duoflow::data {
namespace {

constexpr float kLargestHalf = 65504.0F;
constexpr double kDisplayGamma = 2.2;

std::uint8_t to_byte(double value) { return static_cast<std::uint8_t>(std::lround(255 * std::clamp(value, 0.0, 1.0))); }

}  // namespace

LinearPicture decode_linear(std::string const& bytes, std::string const& name) {
  ImageFormat const format = image_format(bytes);
  if (format != ImageFormat::exr && format != ImageFormat::hdr) {
    throw DataError(fmt::format("{} is {} (linear radiance is needed: 8-bit pictures hold none), pass an OpenEXR or Radiance HDR file", name,
                                bytes.empty() ? "an empty file" : to_string(format)));
  }
  try {
    return format == ImageFormat::exr ? decode_exr(bytes) : decode_hdr(bytes);
  } catch (DataError const& error) {
    throw DataError(fmt::format("{} cannot be read as {} ({}), copy or export it again", name, to_string(format), error.what()));
  }
}

std::string MapRepairs::text() const {
  std::string out;
  auto const add = [&](std::int64_t count, char const* what) {
    if (count > 0) { out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count, what); }
  };
  add(negative, "negative became 0");
  add(not_a_number, "NaN became 0");
  add(too_bright, "above 65504 became 65504");
  return out;
}

MapRepairs repair(ImageF& map) {
  MapRepairs found;
  for (float& value : map.pixels) {
    if (std::isnan(value)) {
      ++found.not_a_number;
      value = 0;
    } else if (value < 0) {
      ++found.negative;
      value = 0;
    } else if (value > kLargestHalf) {
      ++found.too_bright;
      value = kLargestHalf;
    }
  }
  return found;
}

Image8 tone_mapped(LinearPicture const& picture) {
  ImageF const& colour = picture.colour;
  bool const has_alpha = !picture.alpha.empty();
  Image8 out{colour.height, colour.width, has_alpha ? 4 : 3, {}};
  std::size_t const count = colour.pixels.size() / 3;
  out.pixels.reserve(count * static_cast<std::size_t>(out.channels));
  for (std::size_t i = 0; i < count; ++i) {
    double const alpha = has_alpha ? static_cast<double>(picture.alpha[i]) : 1.0;
    for (std::size_t c = 0; c < 3; ++c) {
      double const value = colour.pixels[3 * i + c];
      if (std::isnan(value) || std::isnan(alpha)) {
        throw DataError(fmt::format("row {}, column {} is not a number", static_cast<std::int64_t>(i) / colour.width, static_cast<std::int64_t>(i) % colour.width));
      }
      double const straight = alpha > 0 ? value / alpha : 0.0;
      out.pixels.push_back(to_byte(std::pow(std::clamp(straight, 0.0, 1.0), 1 / kDisplayGamma)));
    }
    if (has_alpha) { out.pixels.push_back(to_byte(alpha)); }
  }
  return out;
}

}  // namespace duoflow::data
