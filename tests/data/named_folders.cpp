#include "named_folders.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>

#include "data/shards/raw_reader.h"
#include "data/shards/shard_writer.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

std::uint64_t salt_of(std::string const& text) {
  std::uint64_t salt = 1469598103934665603ULL;
  for (char const c : text) salt = (salt ^ static_cast<std::uint8_t>(c)) * 1099511628211ULL;
  return salt;
}

std::vector<std::uint8_t> bytes_of(std::string const& name, std::size_t count) {
  std::vector<std::uint8_t> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = sample_byte(salt_of(name), i);
  return bytes;
}

std::vector<std::uint16_t> map_of(std::string const& light, std::int64_t height) {
  std::vector<std::uint16_t> map(static_cast<std::size_t>(height * 2 * height * 3));
  for (std::size_t i = 0; i < map.size(); ++i)
    map[i] = static_cast<std::uint16_t>(0x3000U + sample_byte(salt_of(light), i));
  return map;
}

std::vector<float> cameras(std::int64_t count) {
  std::vector<float> c2w;
  for (std::int64_t i = 0; i < count; ++i)
    for (float const value :
         {1.F, 0.F, 0.F, static_cast<float>(i), 0.F, 1.F, 0.F, 0.F, 0.F, 0.F, 1.F, -2.F, 0.F, 0.F, 0.F, 1.F})
      c2w.push_back(value);
  return c2w;
}

std::vector<float> intrinsics(std::int64_t count, std::int64_t size) {
  std::vector<float> result;
  auto const s = static_cast<float>(size);
  for (std::int64_t i = 0; i < count; ++i)
    for (float const value : {s, s, s / 2, s / 2}) result.push_back(value);
  return result;
}

std::vector<std::byte> stored(std::vector<float> const& numbers, DType dtype) {
  if (dtype != DType::f32) ADD_FAILURE() << "these folders are made in f32";
  auto const* bytes = reinterpret_cast<std::byte const*>(numbers.data());
  return {bytes, bytes + numbers.size() * sizeof(float)};
}

}  // namespace

std::vector<float> named_latents(NamedPairs const& pairs, std::string const& object, std::string const& light) {
  std::vector<float> numbers(static_cast<std::size_t>(pairs.tokens * pairs.dim));
  for (std::size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = (static_cast<float>(sample_byte(salt_of(object + "|" + light), i)) - 128) / 37.0F;
  return numbers;
}

void write_named_pairs(std::string const& path, NamedPairs const& p) {
  auto const lights = std::ssize(p.lights), rows = std::ssize(p.objects) * lights;
  std::vector<std::int64_t> pairs, env_rows, view_sets(static_cast<std::size_t>(rows), p.view_set);
  Names objects, light_names;
  for (std::int64_t o = 0; o < std::ssize(p.objects); ++o)
    for (std::int64_t a = 0; a < lights; ++a) {
      env_rows.push_back(o * lights + a);
      objects.push_back(p.objects[static_cast<std::size_t>(o)]);
      light_names.push_back(p.lights[static_cast<std::size_t>(a)]);
      for (std::int64_t b = 0; b < lights; ++b)
        if (a != b) pairs.insert(pairs.end(), {o * lights + a, o * lights + b});
    }
  ShardWriter writer(path, ShardKind::pair,
                     {{"latents", p.latent_dtype, {rows, p.tokens, p.dim}},
                      {"target_images", DType::u8, {rows, p.targets, p.size, p.size, 3}},
                      {"target_c2w", DType::f32, {rows, p.targets, 4, 4}},
                      {"target_fxfycxcy", DType::f32, {rows, p.targets, 4}},
                      {"env_row", DType::i64, {rows}},
                      {"env", DType::f16, {rows, p.env_height, 2 * p.env_height, 3}},
                      {"world_to_norm", DType::f32, {rows, 4, 4}},
                      {"row/object", DType::name, {rows}},
                      {"row/light", DType::name, {rows}},
                      {"row/view_set", DType::i64, {rows}},
                      {"pairs", DType::i64, {std::ssize(pairs) / 2, 2}}},
                     {p.producer, {}, {}, "named pairs"});
  for (std::int64_t row = 0; row < rows; ++row) {
    auto const &object = objects[static_cast<std::size_t>(row)], &light = light_names[static_cast<std::size_t>(row)];
    writer.write("latents", row, 1, stored(named_latents(p, object, light), p.latent_dtype).data());
    writer.write("target_images", row, 1,
                 bytes_of(object + "|" + light, static_cast<std::size_t>(p.targets * p.size * p.size * 3)).data());
    writer.write("env", row, 1, map_of(light, p.env_height).data());
    writer.write("target_c2w", row, 1, cameras(p.targets).data());
  }
  writer.write("target_fxfycxcy", 0, rows, intrinsics(rows * p.targets, p.size).data());
  std::vector<float> identities;
  for (std::int64_t row = 0; row < rows; ++row)
    for (int i = 0; i < 16; ++i) identities.push_back(i % 5 == 0 ? 1.F : 0.F);
  writer.write("world_to_norm", 0, rows, identities.data());
  writer.write("env_row", 0, rows, env_rows.data());
  writer.write_names("row/object", objects);
  writer.write_names("row/light", light_names);
  writer.write("row/view_set", 0, rows, view_sets.data());
  writer.write("pairs", 0, std::ssize(pairs) / 2, pairs.data());
  writer.close();
}

void write_named_scenes(std::string const& path, NamedScenes const& s) {
  auto const scenes = std::ssize(s.objects) * std::ssize(s.lights), frames = scenes * s.frames;
  std::vector<std::int64_t> first, count(static_cast<std::size_t>(scenes), s.frames), env_row;
  std::vector<float> rotations;
  Names objects, lights;
  ShardWriter writer(path, ShardKind::scene,
                     {{"images", DType::u8, {frames, s.size, s.size, 3}},
                      {"env", DType::f16, {scenes, s.env_height, 2 * s.env_height, 3}},
                      {"c2w", DType::f32, {frames, 4, 4}},
                      {"fxfycxcy", DType::f32, {frames, 4}},
                      {"scene/object", DType::name, {scenes}},
                      {"scene/light", DType::name, {scenes}},
                      {"scene/first_frame", DType::i64, {scenes}},
                      {"scene/frame_count", DType::i64, {scenes}},
                      {"scene/env_row", DType::i64, {scenes}},
                      {"scene/env_rotation", DType::f32, {scenes, 3, 3}}},
                     {"", {}, {}, "named scenes"});
  for (auto const& object : s.objects)
    for (auto const& light : s.lights) {
      auto const scene = std::ssize(objects);
      first.push_back(scene * s.frames);
      env_row.push_back(scene);
      for (int i = 0; i < 9; ++i) rotations.push_back(i % 4 == 0 ? 1.F : 0.F);
      writer.write("images", first.back(), s.frames,
                   bytes_of(object + "|" + light, static_cast<std::size_t>(s.frames * s.size * s.size * 3)).data());
      writer.write("env", scene, 1, map_of(light, s.env_height).data());
      writer.write("c2w", first.back(), s.frames, cameras(s.frames).data());
      objects.push_back(object);
      lights.push_back(light);
    }
  writer.write("fxfycxcy", 0, frames, intrinsics(frames, s.size).data());
  writer.write_names("scene/object", objects);
  writer.write_names("scene/light", lights);
  writer.write("scene/first_frame", 0, scenes, first.data());
  writer.write("scene/frame_count", 0, scenes, count.data());
  writer.write("scene/env_row", 0, scenes, env_row.data());
  writer.write("scene/env_rotation", 0, scenes, rotations.data());
  writer.close();
}

Names unit_names(std::string const& directory) {
  ShardIndex const index(directory);
  Names names;
  if (index.kind() == ShardKind::scene)
    for (auto const& scene : load_scenes(index).scenes) names.push_back(scene.object + "/" + scene.light + "/0");
  else
    for (auto const& row : load_pairs(index).rows)
      names.push_back(fmt::format("{}/{}/{}", row.object, row.light, row.view_set));
  return names;
}

Names pair_names(std::string const& directory) {
  auto const set = load_pairs(ShardIndex(directory));
  Names names;
  for (auto const& pair : set.pairs) {
    auto const &x0 = set.rows[static_cast<std::size_t>(pair.x0)], &x1 = set.rows[static_cast<std::size_t>(pair.x1)];
    names.push_back(fmt::format("{}: {} > {}", x0.object, x0.light, x1.light));
  }
  return names;
}

void expect_named_contents(std::string const& directory) {
  auto const index = std::make_shared<ShardIndex const>(directory);
  RawReader const reader(index, Verify::always);
  auto const expect_map = [&](std::int64_t shard, std::int64_t row, std::string const& light, std::int64_t height) {
    std::vector<std::uint16_t> map(static_cast<std::size_t>(height * 2 * height * 3));
    reader.read(shard, "env", row, map.data());
    EXPECT_EQ(map, map_of(light, height)) << light;
  };
  if (index->kind() == ShardKind::scene) {
    auto const set = load_scenes(*index);
    for (auto const& scene : set.scenes) {
      std::vector<std::uint8_t> pixels(static_cast<std::size_t>(scene.frame_count * set.height * set.width * 3));
      reader.read_rows(scene.shard, "images", scene.first_frame, scene.frame_count, pixels.data());
      EXPECT_EQ(pixels, bytes_of(scene.object + "|" + scene.light, pixels.size()))
          << scene.object << " " << scene.light;
      EXPECT_EQ(scene.c2w, cameras(scene.frame_count));
      expect_map(scene.shard, scene.env_row, scene.light, set.env_height);
    }
    return;
  }
  auto const set = load_pairs(*index);
  for (auto const& row : set.rows) {
    std::vector<std::uint8_t> pixels(static_cast<std::size_t>(set.targets * set.height * set.width * 3));
    reader.read(row.shard, "target_images", row.row, pixels.data());
    EXPECT_EQ(pixels, bytes_of(row.object + "|" + row.light, pixels.size())) << row.object << " " << row.light;
    expect_map(row.shard, row.env_row, row.light, set.env_height);
    if (set.latent_dtype != DType::f32) continue;
    std::vector<float> latents(static_cast<std::size_t>(set.tokens * set.dim));
    reader.read(row.shard, "latents", row.row, latents.data());
    EXPECT_EQ(latents, named_latents({.objects = {}, .lights = {}, .tokens = set.tokens, .dim = set.dim}, row.object,
                                     row.light));
  }
}

}  // namespace duoflow::data::testing
