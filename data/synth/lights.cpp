#include "data/synth/lights.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <numbers>

#include "data/environment_map.h"
#include "data/error.h"
#include "data/synth/keyed_random.h"

namespace duoflow::data {
namespace {

constexpr float kDegree = std::numbers::pi_v<float> / 180;

using Sky = std::function<Vec3(Vec3 direction)>;

Vec3 from_angles(float elevation, float azimuth) {
  return {std::cos(elevation) * std::cos(azimuth), std::cos(elevation) * std::sin(azimuth), std::sin(elevation)};
}

// A sun of angular radius 13 to 20 degrees with a soft edge (a small hard disc would need far more samples), a sky that
// fades from horizon to zenith, and ground.
Sky make_sky(KeyedRandom random) {
  float const radius = random.uniform(13, 20) * kDegree, hue = random.uniform();
  Vec3 const sun = from_angles(std::asin(random.uniform(-0.1F, 0.97F)), random.uniform(0, 360) * kDegree);
  float const sun_share = random.uniform(0.38F, 0.62F);  // of the light of the whole sphere
  Vec3 const sun_colour = colour_of(hue, random.uniform(0.2F, 0.75F), 1);
  Vec3 const zenith = colour_of(hue + random.uniform(0.3F, 0.7F), random.uniform(0.3F, 0.8F), 1);
  Vec3 const horizon = colour_of(hue + random.uniform(-0.15F, 0.15F), random.uniform(0.1F, 0.6F), random.uniform(0.5F, 1));
  Vec3 const ground = colour_of(random.uniform(), random.uniform(0.1F, 0.6F), random.uniform(0.05F, 0.35F));
  float const strength = sun_share / (1 - sun_share) * 2 * 0.6F / (1 - std::cos(radius));  // the rest of the sphere averages 0.6
  return [=](Vec3 d) {
    Vec3 const above = mix(horizon, zenith, smooth_step(0, 0.9F, d.z));
    Vec3 const rest = mix(ground, above, smooth_step(-0.15F, 0.1F, d.z));
    float const angle = std::acos(std::clamp(dot(d, sun), -1.0F, 1.0F));
    return rest + sun_colour * (strength * (1 - smooth_step(0.65F * radius, 1.3F * radius, angle)));
  };
}

struct Panel {
  Frame frame;  // n: towards the panel's centre
  float half_width, half_height;  // tangents of the half angles
  bool round;
  Vec3 radiance;

  Vec3 seen_from(Vec3 d) const {
    Vec3 const local = frame.to_local(d);
    if (local.z < 0.05F) {
      return {};
    }
    float const x = std::abs(local.x / local.z) / half_width, y = std::abs(local.y / local.z) / half_height;
    float const edge = round ? std::sqrt(x * x + y * y) : std::max(x, y);
    return radiance * (1 - smooth_step(0.8F, 1.2F, edge));
  }
};

// A key panel that dominates, one to three weaker ones of other colours, and a dim coloured room.
Sky make_area(KeyedRandom random) {
  std::vector<Panel> panels;
  int const count = 2 + random.below(3);
  float const hue = random.uniform();
  for (int p = 0; p < count; ++p) {
    Vec3 const centre = from_angles(std::asin(random.uniform(-0.35F, 0.95F)), random.uniform(0, 360) * kDegree);
    float const turn = random.uniform(0, 180) * kDegree;
    Panel panel{Frame(centre), std::tan(random.uniform(15, 35) * kDegree), std::tan(random.uniform(15, 35) * kDegree), random.below(2) == 0, {}};
    Vec3 const s = panel.frame.s, t = panel.frame.t;
    panel.frame.s = s * std::cos(turn) + t * std::sin(turn);
    panel.frame.t = cross(centre, panel.frame.s);
    float const power = p == 0 ? 1 : random.uniform(0.08F, 0.4F);  // equal for wide and narrow panels
    Vec3 const colour = colour_of(p == 0 ? hue : hue + random.uniform(0.2F, 0.8F), random.uniform(0.3F, 0.85F), 1);
    panel.radiance = colour * (power / (panel.half_width * panel.half_height));
    panels.push_back(panel);
  }
  Vec3 const room = colour_of(random.uniform(), random.uniform(0.1F, 0.6F), random.uniform(0.1F, 0.25F));
  return [panels, room](Vec3 d) {
    Vec3 sum = room * (0.7F + 0.3F * d.z);
    for (Panel const& panel : panels) {
      sum = sum + panel.seen_from(d);
    }
    return sum;
  };
}

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

ImageF exposed(ImageF map) {
  float const mean = mean_luminance(map);
  if (mean > 0) {
    for (float& value : map.pixels) {
      value *= kMeanLuminance / mean;
    }
  }
  return map;
}

// A photographed sun or lamp can be one texel that outshines the rest, which no affordable number of samples finds evenly.
// What exceeds kCap times the mean is spread over a soft disc of the size of a procedural sun, keeping its power and colour.
ImageF softened(ImageF const& map) {
  constexpr float kCap = 6, kRadius = 14 * kDegree;
  float const cap = kCap * mean_luminance(map);
  auto const direction = [&](std::int64_t texel) {
    auto const d = map_direction(texel / map.width, texel % map.width, map.height, map.width);
    return Vec3{d[0], d[1], d[2]};
  };
  auto const solid_angle = [&](Vec3 d) { return std::sqrt(std::max(0.0F, 1 - d.z * d.z)); };  // up to a factor
  ImageF soft = map;
  std::int64_t const texels = map.height * map.width;
  std::vector<float> disc(static_cast<std::size_t>(texels));
  for (std::int64_t source = 0; source < texels; ++source) {
    float const* const from = &map.pixels[static_cast<std::size_t>(source * 3)];
    float const peak = std::max({from[0], from[1], from[2]});
    if (peak <= cap) {
      continue;
    }
    Vec3 const centre = direction(source);
    float total = 0;
    for (std::int64_t t = 0; t < texels; ++t) {
      Vec3 const d = direction(t);
      float const angle = std::acos(std::clamp(dot(d, centre), -1.0F, 1.0F));
      disc[static_cast<std::size_t>(t)] = 1 - smooth_step(0.65F * kRadius, 1.3F * kRadius, angle);
      total += disc[static_cast<std::size_t>(t)] * solid_angle(d);
    }
    float const kept = cap / peak, spread = (1 - kept) * solid_angle(centre) / total;
    for (std::size_t c = 0; c < 3; ++c) {
      soft.pixels[static_cast<std::size_t>(source * 3) + c] -= from[c] * (1 - kept);
      for (std::size_t t = 0; t < disc.size(); ++t) {
        soft.pixels[t * 3 + c] += from[c] * spread * disc[t];
      }
    }
  }
  return soft;
}

}  // namespace

ImageF procedural_light(std::uint64_t seed, std::int64_t index, std::int64_t height) {
  auto const k = static_cast<std::uint64_t>(index);
  bool const sky = (k + make_key(seed, "family", 0)) % 2 == 0;
  KeyedRandom const random(make_key(seed, "light", k));
  return exposed(paint(sky ? make_sky(random) : make_area(random), height));
}

std::vector<ImageF> file_lights(std::string const& folder, std::uint64_t seed, std::int64_t count, std::int64_t height) {
  std::vector<std::string> files;
  std::error_code error;
  for (auto const& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".exr") {
      files.push_back(entry.path().string());
    }
  }
  if (files.empty()) {
    throw DataError(fmt::format("no light found in {} ({}), give a folder that holds .exr files", folder,
                                error ? error.message() : "it has no .exr file"));
  }
  std::sort(files.begin(), files.end());
  std::vector<ImageF> originals, lights;
  for (std::int64_t k = 0; k < count; ++k) {
    auto const file = static_cast<std::size_t>(k) % files.size();
    if (file == originals.size()) {
      originals.push_back(softened(resize_map(read_exr(files[file]), height, 2 * height)));
    }
    auto const round = static_cast<float>(static_cast<std::size_t>(k) / files.size());
    float const shake = KeyedRandom(make_key(seed, "yaw", static_cast<std::uint64_t>(k))).uniform(-0.08F, 0.08F);
    // Golden-ratio steps keep the turns of one file apart.
    float const yaw = round == 0 ? 0 : (round * 0.618034F - std::floor(round * 0.618034F) + shake) * 360 * kDegree;
    float const c = std::cos(yaw), s = std::sin(yaw);
    lights.push_back(exposed(round == 0 ? originals[file] : rotate_map(originals[file], {c, -s, 0, s, c, 0, 0, 0, 1})));
  }
  return lights;
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
