// Light maps from files.

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numbers>

#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/synth/keyed_random.h"
#include "data/synth/lights.h"

namespace duoflow::data {
namespace {

constexpr float kDegree = std::numbers::pi_v<float> / 180;

// A photographed sun or lamp can be one texel that outshines the rest, which reflections alone find unevenly. What exceeds kCap
// times the mean is spread over a soft disc of this angular radius, keeping its power and colour.
ImageF softened(ImageF const& map, float radius) {
  constexpr float kCap = 6;
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
      disc[static_cast<std::size_t>(t)] = 1 - smooth_step(0.65F * radius, 1.3F * radius, angle);
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

std::vector<ImageF> file_lights(std::string const& folder, std::uint64_t seed, std::int64_t count, std::int64_t height,
                                float soften_degrees) {
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
      ImageF const map = resize_map(read_exr(files[file]), height, 2 * height);
      originals.push_back(soften_degrees > 0 ? softened(map, soften_degrees * kDegree) : map);
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

}  // namespace duoflow::data
