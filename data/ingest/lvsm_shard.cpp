#include "data/ingest/lvsm_shard.h"

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/images/linear_picture.h"
#include "data/parallel.h"
#include "data/images/picture.h"
#include "data/shards/shard_writer.h"

namespace duoflow::data {
namespace {

// Raise it when the same sources give other bytes than before: shards of an interrupted call are then made anew.
constexpr int kRecipe = 1;

// Maps at one strength: a scene's turn is not in its row.
using LightKey = std::pair<std::string, double>;

std::vector<LightKey> lights_of(std::span<LvsmScene const> scenes) {
  std::vector<LightKey> lights;
  for (LvsmScene const& scene : scenes) {
    LightKey const key{scene.source->file, scene.source->strength};
    if (std::find(lights.begin(), lights.end(), key) == lights.end()) { lights.push_back(key); }
  }
  return lights;
}

std::int64_t frames_of(std::span<LvsmScene const> scenes) {
  std::int64_t frames = 0;
  for (LvsmScene const& scene : scenes) { frames += static_cast<std::int64_t>(scene.frames.size()); }
  return frames;
}

std::vector<DatasetSpec> datasets(std::span<LvsmScene const> members, ShardFormat const& format) {
  std::int64_t const frames = frames_of(members), scenes = static_cast<std::int64_t>(members.size());
  std::vector<DatasetSpec> out{{"images", DType::u8, {frames, format.size, format.size, 3}}};
  if (format.alpha) { out.push_back({"alpha", DType::u8, {frames, format.size, format.size}}); }
  if (format.env_sources) {
    auto const lights = static_cast<std::int64_t>(lights_of(members).size());
    out.push_back({"env", DType::f16, {lights, format.env_height, format.env_width, 3}});
  } else {
    for (char const* name : {"env_ldr", "env_hdr"}) { out.push_back({name, DType::u8, {frames, format.env_height, format.env_width, 3}}); }
  }
  std::vector<DatasetSpec> const rest{{"c2w", DType::f32, {frames, 4, 4}},
                                      {"fxfycxcy", DType::f32, {frames, 4}},
                                      {"scene/object", DType::name, {scenes}},
                                      {"scene/light", DType::name, {scenes}},
                                      {"scene/first_frame", DType::i64, {scenes}},
                                      {"scene/frame_count", DType::i64, {scenes}},
                                      {"scene/env_row", DType::i64, {scenes}},
                                      {"scene/env_rotation", DType::f32, {scenes, 3, 3}}};
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

void write_scene_table(ShardWriter& writer, std::span<LvsmScene const> scenes, ShardFormat const& format) {
  std::vector<std::string> objects, lights;
  std::vector<std::int64_t> first_frames, frame_counts, env_rows;
  std::vector<float> rotations;
  auto const light_rows = format.env_sources ? lights_of(scenes) : std::vector<LightKey>{};
  std::int64_t frames = 0;
  for (LvsmScene const& scene : scenes) {
    objects.push_back(scene.object);
    lights.push_back(scene.light);
    first_frames.push_back(frames);
    frame_counts.push_back(static_cast<std::int64_t>(scene.frames.size()));
    frames += frame_counts.back();
    auto const rotation = env_rotation(scene.source ? scene.source->rotation_euler : std::array<double, 3>{});
    rotations.insert(rotations.end(), rotation.begin(), rotation.end());
    std::int64_t row = -1;  // per frame
    if (scene.source) { row = std::find(light_rows.begin(), light_rows.end(), LightKey{scene.source->file, scene.source->strength}) - light_rows.begin(); }
    env_rows.push_back(row);
  }
  auto const count = static_cast<std::int64_t>(scenes.size());
  writer.write_names("scene/object", objects);
  writer.write_names("scene/light", lights);
  writer.write("scene/first_frame", 0, count, first_frames.data());
  writer.write("scene/frame_count", 0, count, frame_counts.data());
  writer.write("scene/env_row", 0, count, env_rows.data());
  writer.write("scene/env_rotation", 0, count, rotations.data());
}

void write_picture(ShardWriter& writer, std::int64_t row, LvsmFrame const& frame, ShardFormat const& format, ShardSources const& sources) {
  // Colours were judged when the file was checked.
  Image8 const stored = decode_picture(read_checked(sources.files, sources.table, frame.image), frame.image, ColourRule::assume_srgb);
  SquareFit const fit(frame.size, format.size);
  Image8 const square = crop(resize_lanczos(stored, fit.height, fit.width), fit.top, fit.left, format.size, format.size);
  writer.write("images", row, 1, over_white(square).pixels.data());
  if (format.alpha) {
    std::vector<std::uint8_t> alpha(square.pixels.size() / 4);
    for (std::size_t i = 0; i < alpha.size(); ++i) { alpha[i] = square.pixels[4 * i + 3]; }
    writer.write("alpha", row, 1, alpha.data());
  }
  writer.write("c2w", row, 1, frame.c2w.data());
  writer.write("fxfycxcy", row, 1, fit.intrinsics(frame).data());
}

void write_light_codes(ShardWriter& writer, std::int64_t row, LvsmFrame const& frame, ShardFormat const& format, ShardSources const& sources) {
  auto const read = [&](std::string const& path) { return over_white(decode_encoded(read_checked(sources.files, sources.table, path), path)); };
  EncodedMap pair{read(frame.env_ldr), read(frame.env_hdr)};
  if (pair.ldr.height != format.env_height || pair.ldr.width != format.env_width) {
    // Averages of encoded values would lose light: resized as radiance, encoded again.
    pair = encode_pair(resize_map(recover_linear(pair.ldr, pair.log_map), format.env_height, format.env_width));
  }
  writer.write("env_ldr", row, 1, pair.ldr.pixels.data());
  writer.write("env_hdr", row, 1, pair.log_map.pixels.data());
}

void write_light_source(ShardWriter& writer, std::int64_t row, LightKey const& light, ShardFormat const& format, ShardSources const& sources) {
  auto const& [path, strength] = light;
  ImageF map = decode_linear(read_checked(sources.files, sources.table, path), path).colour;
  for (float& value : map.pixels) { value *= static_cast<float>(strength); }
  repair(map);  // counted when the file was checked
  map = resize_map(map, format.env_height, format.env_width);
  std::vector<std::uint16_t> half(map.pixels.size());
  std::transform(map.pixels.begin(), map.pixels.end(), half.begin(), to_half);
  writer.write("env", row, 1, half.data());
}

struct Place {
  LvsmScene const* scene;
  std::size_t frame;
};

// Every frame and light map, in any order: each has its own rows.
void write_rows(ShardWriter& writer, std::span<LvsmScene const> scenes, ShardFormat const& format, ShardSources const& sources) {
  std::vector<Place> places;
  for (LvsmScene const& scene : scenes) {
    for (std::size_t i = 0; i < scene.frames.size(); ++i) { places.push_back({&scene, i}); }
  }
  for_each_index(places.size(), sources.threads, [&](std::size_t i) {
    auto const& [scene, frame] = places[i];
    try {
      write_picture(writer, static_cast<std::int64_t>(i), scene->frames[frame], format, sources);
      if (!format.env_sources) { write_light_codes(writer, static_cast<std::int64_t>(i), scene->frames[frame], format, sources); }
    } catch (DataError const& error) {
      throw DataError(fmt::format("scene {} frame {}: {}", scene->name, frame, error.what()));
    }
  });
  if (!format.env_sources) { return; }
  auto const lights = lights_of(scenes);
  for_each_index(lights.size(), sources.threads, [&](std::size_t i) { write_light_source(writer, static_cast<std::int64_t>(i), lights[i], format, sources); });
}

// What a failed write of a shard lacked: room on the disk, or leave to make a file so large. "" when neither was short.
std::string shortage(std::string const& path, std::uint64_t needed) {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < needed) {
    return fmt::format("the shard needs {} bytes, a file may have {} (ulimit -f): {} are missing, raise the limit", needed, limit.rlim_cur, needed - limit.rlim_cur);
  }
  std::error_code ignored;
  auto const space = std::filesystem::space(std::filesystem::path(path).parent_path(), ignored);
  if (!ignored && space.available < needed) {
    return fmt::format("the shard needs {} bytes, the disk has {} free without it: {} are missing, free some", needed, space.available, needed - space.available);
  }
  return "";
}

}  // namespace

SquareFit::SquareFit(ImageSize const& picture, std::int64_t size) {
  double const ratio = static_cast<double>(size) / static_cast<double>(std::min(picture.height, picture.width));
  height = std::max<std::int64_t>(std::llround(ratio * static_cast<double>(picture.height)), size);
  width = std::max<std::int64_t>(std::llround(ratio * static_cast<double>(picture.width)), size);
  top = (height - size) / 2;
  left = (width - size) / 2;
}

std::array<float, 4> SquareFit::intrinsics(LvsmFrame const& frame) const {
  double const x = static_cast<double>(width) / static_cast<double>(frame.size.width);
  double const y = static_cast<double>(height) / static_cast<double>(frame.size.height);
  auto const& k = frame.fxfycxcy;
  return {static_cast<float>(k[0] * x), static_cast<float>(k[1] * y), static_cast<float>(k[2] * x - static_cast<double>(left)),
          static_cast<float>(k[3] * y - static_cast<double>(top))};
}

std::string shard_fingerprint(std::span<LvsmScene const> scenes, ShardFormat const& format, FileTable const& table) {
  std::string text = fmt::format("recipe {} schema {} size {} env {} x {} alpha {} sources {}\n", kRecipe, kSchemaVersion, format.size, format.env_height,
                                 format.env_width, format.alpha, format.env_sources);
  auto const hash_of = [&](std::string const& path) { return path.empty() ? std::string() : table.at(path).xxh3; };
  for (LvsmScene const& scene : scenes) {
    text += fmt::format("{} {}\n", scene.object, scene.light);
    // The file by its path too: scenes share a row when they name one file.
    if (scene.source) { text += fmt::format("{} {} {} {}\n", scene.source->file, hash_of(scene.source->file), scene.source->rotation_euler, scene.source->strength); }
    for (LvsmFrame const& frame : scene.frames) {
      text += fmt::format("{} {} {} {} {}\n", hash_of(frame.image), hash_of(frame.env_ldr), hash_of(frame.env_hdr), frame.fxfycxcy, frame.w2c);
    }
  }
  return xxh3_hex(text.data(), text.size());
}

std::uint64_t shard_bytes(std::span<LvsmScene const> scenes, ShardFormat const& format) {
  std::uint64_t bytes = 0;
  for (DatasetSpec const& spec : datasets(scenes, format)) { bytes += static_cast<std::uint64_t>(spec.rows()) * spec.row_bytes(); }
  return bytes;
}

void write_lvsm_shard(std::string const& path, std::span<LvsmScene const> scenes, ShardFormat const& format, ShardSources const& sources) {
  Attributes attributes;
  attributes.note = std::string(kIngestNote) + fmt::format(", pictures of {0} x {0} over white, light maps {3} of {1} x {2}", format.size, format.env_height,
                                format.env_width, format.env_sources ? "from their sources" : "per frame");
  try {
    ShardWriter writer(path, ShardKind::scene, datasets(scenes, format), attributes);
    write_scene_table(writer, scenes, format);
    write_rows(writer, scenes, format, sources);
    writer.close();
  } catch (DataError const&) {
    std::string const short_of = shortage(path, shard_bytes(scenes, format));  // the partial file is gone by now
    if (short_of.empty()) { throw; }
    throw DataError(fmt::format("cannot write {}: {}, and start again: finished shards are kept", path, short_of));
  }
}

}  // namespace duoflow::data
