#include "data/loading/scene_lights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <tuple>

#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/ingest/ingest_lvsm.h"

namespace duoflow::data {
namespace {

ImageF per_frame_map(RawReader const& reader, SceneSet const& set, SceneEntry const& scene) {
  auto const read = [&](char const* dataset) {
    Image8 image{set.env_height, set.env_width, 3,
                 std::vector<std::uint8_t>(static_cast<std::size_t>(set.env_height * set.env_width * 3))};
    reader.read(scene.shard, dataset, scene.first_frame, image.pixels.data());
    return image;
  };
  return camera_map_to_world(recover_linear(read("env_ldr"), read("env_hdr")), scene.c2w.data(), set.env_height,
                             set.env_width);
}

ImageF own_map(RawReader const& reader, SceneSet const& set, SceneEntry const& scene) {
  std::vector<std::uint16_t> half(static_cast<std::size_t>(set.env_height * set.env_width * 3));
  reader.read(scene.shard, "env", scene.env_row, half.data());
  ImageF map{set.env_height, set.env_width, std::vector<float>(half.size())};
  std::transform(half.begin(), half.end(), map.pixels.begin(), from_half);
  std::array<float, 9> rotation;
  std::copy_n(scene.env_rotation, 9, rotation.begin());
  return rotation == std::array<float, 9>{1, 0, 0, 0, 1, 0, 0, 0, 1} ? map : rotate_map(map, rotation);
}

}  // namespace

ImageF scene_light(RawReader const& reader, SceneSet const& set, SceneEntry const& scene, std::int64_t height) {
  auto const map = set.env_per_frame ? per_frame_map(reader, set, scene) : own_map(reader, set, scene);
  return map.height == height ? map : resize_map(map, height, 2 * height);
}

bool is_light_pair(SceneEntry const& from, SceneEntry const& to) {
  return from.object == to.object && base_light(from.light) != base_light(to.light);
}

void require_same_cameras(SceneEntry const& a, SceneEntry const& b) {
  if (a.frame_count != b.frame_count)
    throw DataError(fmt::format(
        "object {}: {} frames under light {}, {} under {} (one frame index must be one camera); make the scenes again",
        a.object, a.frame_count, a.light, b.frame_count, b.light));
  auto const compare = [&](std::vector<float> const& x, std::vector<float> const& y, float tolerance,
                           std::size_t width) {
    for (std::size_t i = 0; i < x.size(); ++i)
      if (!(std::abs(x[i] - y[i]) <= tolerance))
        throw DataError(fmt::format(
            "object {}: frame {} has another camera under light {} than under {} ({} and {} where one frame "
            "index must be one camera); make the scenes again",
            a.object, i / width, a.light, b.light, x[i], y[i]));
  };
  compare(a.c2w, b.c2w, 1e-4F, 16);
  compare(a.fxfycxcy, b.fxfycxcy, 1e-2F, 4);
}

std::vector<PairEntry> light_pairs(SceneSet const& set) {
  auto const scene = [&](std::int64_t index) -> SceneEntry const& {
    return set.scenes[static_cast<std::size_t>(index)];
  };
  std::vector<std::int64_t> order(set.scenes.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return std::tie(scene(a).object, scene(a).light) < std::tie(scene(b).object, scene(b).light);
  });
  std::vector<PairEntry> pairs;
  for (auto begin = order.begin(); begin != order.end();) {
    auto const end = std::find_if(begin, order.end(), [&](auto i) { return scene(i).object != scene(*begin).object; });
    for (auto a = begin; a != end; ++a) {
      require_same_cameras(scene(*a), scene(*begin));
      for (auto b = begin; b != end; ++b)
        if (is_light_pair(scene(*a), scene(*b))) pairs.push_back({*a, *b});
    }
    begin = end;
  }
  if (pairs.empty())
    throw DataError("no object has two lights with different base maps (nothing to edit); make more lights");
  return pairs;
}

}  // namespace duoflow::data
