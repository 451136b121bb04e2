#include "data/synth/lights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numbers>
#include <utility>

#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/synth/light_kinds.h"
#include "data/synth/path_tracer.h"
#include "data/synth/sample_points.h"

namespace duoflow::data {
namespace {

constexpr std::array<std::pair<char const*, LightKind>, 4> kNames{
    {{"sky", LightKind::sky}, {"area", LightKind::area}, {"sun-sky", LightKind::sun_sky}, {"studio", LightKind::studio}}};

// Each texel is the mean over 4 x 4 directions in it.
ImageF paint(Sky const& sky, std::int64_t height) {
  constexpr std::int64_t kFine = 4;
  ImageF map{height, 2 * height, std::vector<float>(static_cast<std::size_t>(height * 2 * height * 3))};
  for (std::int64_t row = 0; row < height; ++row) {
    for (std::int64_t column = 0; column < map.width; ++column) {
      Vec3 sum;
      for (std::int64_t fine = 0; fine < kFine * kFine; ++fine) {
        auto const d = map_direction(row * kFine + fine / kFine, column * kFine + fine % kFine, height * kFine, map.width * kFine);
        sum = sum + sky({d[0], d[1], d[2]});
      }
      float* const texel = &map.pixels[static_cast<std::size_t>((row * map.width + column) * 3)];
      texel[0] = sum.x / (kFine * kFine);
      texel[1] = sum.y / (kFine * kFine);
      texel[2] = sum.z / (kFine * kFine);
    }
  }
  return map;
}

// Adds a disc of kSunRadius: what its directions carry goes to the texels they fall into, so its power does not depend on the map.
void add_sun(ImageF& map, SunSky const& day) {
  constexpr std::uint32_t kPoints = 256;
  Frame const frame(day.sun);
  float const radius = kSunRadius * std::numbers::pi_v<float> / 180;
  for (std::uint32_t i = 0; i < kPoints; ++i) {
    Point2 const p = sample_point(1, i);
    float const r = radius * std::sqrt(p.x), phi = 2 * std::numbers::pi_v<float> * p.y;
    Vec3 const d = normalised(frame.to_world({r * std::cos(phi), r * std::sin(phi), 1}));
    std::int64_t const at = texel_towards(d, map.height, map.width);
    float* const texel = &map.pixels[static_cast<std::size_t>(at * 3)];
    float const share = 1 / (static_cast<float>(kPoints) * texel_solid_angle(map.height, at / map.width));
    texel[0] += day.sun_irradiance.x * share;
    texel[1] += day.sun_irradiance.y * share;
    texel[2] += day.sun_irradiance.z * share;
  }
}

}  // namespace

LightKind light_kind(std::string const& name) {
  for (auto const& [known, kind] : kNames) {
    if (name == known) { return kind; }
  }
  throw DataError(fmt::format("\"{}\" is no kind of light, give some of: sky, area, sun-sky, studio", name));
}

std::string to_string(LightKind kind) {
  return std::find_if(kNames.begin(), kNames.end(), [&](auto const& entry) { return entry.second == kind; })->first;
}

float texel_solid_angle(std::int64_t height, std::int64_t row) {
  double const step = std::numbers::pi / static_cast<double>(height);
  return static_cast<float>((std::cos(step * static_cast<double>(row)) - std::cos(step * static_cast<double>(row + 1))) * step);
}

ImageF exposed(ImageF map) {
  float const mean = mean_luminance(map);
  if (mean > 0) {
    for (float& value : map.pixels) {
      value *= kMeanLuminance / mean;
    }
  }
  return map;
}

ImageF procedural_light(std::uint64_t seed, std::int64_t index, std::int64_t height, std::vector<LightKind> const& kinds) {
  auto const k = static_cast<std::uint64_t>(index);
  KeyedRandom const random(make_key(seed, "light", k));
  switch (kinds[(k + make_key(seed, "family", 0)) % kinds.size()]) {
    case LightKind::sky: return exposed(paint(make_sky(random), height));
    case LightKind::area: return exposed(paint(make_area(random), height));
    case LightKind::studio: return exposed(paint(make_studio(random), height));
    case LightKind::sun_sky: break;
  }
  SunSky const day = make_sun_sky(random);
  ImageF map = paint(day.sky, height);
  add_sun(map, day);
  return exposed(std::move(map));
}

std::string light_name(std::int64_t index) { return fmt::format("env_{:03}", index); }

std::vector<std::uint16_t> to_halves(ImageF const& map) {
  std::vector<std::uint16_t> halves(map.pixels.size());
  std::transform(map.pixels.begin(), map.pixels.end(), halves.begin(), to_half);
  return halves;
}

ImageF rounded_to_half(ImageF const& map) {
  ImageF rounded = map;
  for (float& value : rounded.pixels) {
    value = from_half(to_half(value));
  }
  return rounded;
}

}  // namespace duoflow::data
