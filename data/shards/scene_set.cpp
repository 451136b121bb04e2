#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "data/error.h"
#include "data/parallel.h"
#include "data/shards/shard_index.h"
#include "data/shards/tables.h"

namespace duoflow::data {
namespace {

struct SceneTable {
  std::vector<std::string> object, light;
  std::vector<std::int64_t> first_frame, frame_count, env_row;
  std::vector<float> env_rotation, c2w, fxfycxcy;
  std::int64_t frames = 0, env_rows = 0;
};

SceneTable read_table(Tables const& tables, std::int64_t shard, std::int64_t frames, std::int64_t env_rows) {
  auto const scenes = tables.require(shard, "scene/first_frame", {DType::i64}, {kAny}).rows();
  return {.object = tables.names(shard, "scene/object", scenes),
          .light = tables.names(shard, "scene/light", scenes),
          .first_frame = tables.integers(shard, "scene/first_frame", {scenes}),
          .frame_count = tables.integers(shard, "scene/frame_count", {scenes}),
          .env_row = tables.integers(shard, "scene/env_row", {scenes}),
          .env_rotation = tables.floats(shard, "scene/env_rotation", {scenes, 3, 3}),
          .c2w = tables.floats(shard, "c2w", {frames, 4, 4}),
          .fxfycxcy = tables.floats(shard, "fxfycxcy", {frames, 4}),
          .frames = frames,
          .env_rows = env_rows};
}

SceneEntry make_scene(SceneTable const& table, std::int64_t shard, std::size_t row, std::string const& path) {
  SceneEntry scene{.object = table.object[row],
                   .light = table.light[row],
                   .shard = shard,
                   .first_frame = table.first_frame[row],
                   .frame_count = table.frame_count[row],
                   .env_row = table.env_row[row],
                   .c2w = {},
                   .fxfycxcy = {}};
  if (scene.first_frame < 0 || scene.frame_count < 0 || scene.frame_count > table.frames - scene.first_frame)
    throw DataError(fmt::format("{}: scene {} ({} under {}) has frames {} to {} (the shard has {}), make the shard again", path, row,
                                scene.object, scene.light, scene.first_frame, scene.first_frame + scene.frame_count, table.frames));
  if (scene.env_row < -1 || scene.env_row >= table.env_rows || (scene.env_row == -1 && table.env_rows > 0))
    throw DataError(fmt::format("{}: scene {} ({} under {}) has env_row {} (the shard has {} maps), make the shard again", path, row,
                                scene.object, scene.light, scene.env_row, table.env_rows));
  auto const first = static_cast<std::ptrdiff_t>(scene.first_frame), end = first + static_cast<std::ptrdiff_t>(scene.frame_count);
  scene.c2w.assign(table.c2w.begin() + 16 * first, table.c2w.begin() + 16 * end);
  scene.fxfycxcy.assign(table.fxfycxcy.begin() + 4 * first, table.fxfycxcy.begin() + 4 * end);
  std::copy_n(table.env_rotation.begin() + static_cast<std::ptrdiff_t>(9 * row), 9, scene.env_rotation);
  return scene;
}

struct ShardScenes {
  SceneSet set;
  Common common;
};

ShardScenes read_shard(Tables const& tables, std::int64_t shard) {
  auto const path = tables.path(shard);
  auto const& images = tables.require(shard, "images", {DType::u8}, {kAny, kAny, kAny, 3});
  auto const frames = images.rows();
  SceneSet set;
  set.height = images.shape[1];
  set.width = images.shape[2];
  set.has_alpha = tables.has(shard, "alpha");
  if (set.has_alpha) tables.require(shard, "alpha", {DType::u8}, {frames, set.height, set.width});
  bool const shared_maps = tables.has(shard, "env");
  set.env_per_frame = !shared_maps && tables.has(shard, "env_ldr");
  std::int64_t env_rows = 0;
  if (shared_maps || set.env_per_frame) {
    auto const& env = shared_maps ? tables.require(shard, "env", {DType::f16}, {kAny, kAny, kAny, 3})
                                  : tables.require(shard, "env_ldr", {DType::u8}, {frames, kAny, kAny, 3});
    set.env_height = env.shape[1];
    set.env_width = env.shape[2];
    if (shared_maps) env_rows = env.rows();
  }
  if (set.env_per_frame) tables.require(shard, "env_hdr", {DType::u8}, {frames, set.env_height, set.env_width, 3});
  Common common{path,
                {{"image height", set.height},
                 {"image width", set.width},
                 {"environment map height", set.env_height},
                 {"environment map width", set.env_width},
                 {"alpha (0 or 1)", set.has_alpha},
                 {"environment maps per frame (0 or 1)", set.env_per_frame}}};
  auto const table = read_table(tables, shard, frames, env_rows);
  for (std::size_t row = 0; row < table.first_frame.size(); ++row) set.scenes.push_back(make_scene(table, shard, row, path));
  return {std::move(set), std::move(common)};
}

}  // namespace

SceneSet load_scenes(ShardIndex const& index) {
  if (index.kind() != ShardKind::scene)
    throw DataError(fmt::format("{} holds pair shards (scene shards needed here), give the folder they were encoded from",
                                index.directory()));
  Tables const tables(index);
  std::vector<ShardScenes> parts(index.shards().size());
  for_each_index(parts.size(), kTableThreads, [&](std::size_t i) { parts[i] = read_shard(tables, static_cast<std::int64_t>(i)); });
  SceneSet set;
  for (auto& [part, common] : parts) {
    require_same(parts.front().common, common);
    auto scenes = std::move(set.scenes);
    std::move(part.scenes.begin(), part.scenes.end(), std::back_inserter(scenes));
    set = std::move(part);
    set.scenes = std::move(scenes);
  }
  return set;
}

}  // namespace duoflow::data
