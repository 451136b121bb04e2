#include "sample_folders.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "data/file.h"
#include "data/shards/shard_writer.h"

namespace duoflow::data::testing {

TemporaryFolder::TemporaryFolder() {
  auto pattern = (std::filesystem::temp_directory_path() / "duoflow-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> TemporaryFolder::files() const {
  std::vector<std::string> names;
  for (auto const& entry : std::filesystem::directory_iterator(path_)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::string file_bytes(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put_bytes(std::string const& path, std::string const& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string rehashed(std::string const& manifest) {
  auto const body = manifest.substr(0, manifest.rfind(",\"xxh3\":\"")) + "}";
  return body.substr(0, body.size() - 1) + ",\"xxh3\":\"" + xxh3_hex(body.data(), body.size()) + "\"}\n";
}

void flip_byte(std::string const& path, std::uint64_t offset) {
  auto bytes = file_bytes(path);
  bytes.at(offset) = static_cast<char>(bytes.at(offset) ^ 1);
  put_bytes(path, bytes);
}

std::uint8_t sample_byte(std::uint64_t salt, std::uint64_t i) {
  auto const x = (i + 1) * 0x9e3779b97f4a7c15ULL + salt * 0xbf58476d1ce4e5b9ULL;
  return static_cast<std::uint8_t>((x ^ (x >> 29)) >> 13);
}

namespace {

// 16-bit floats get their top exponent bits cleared, so that every pattern is finite.
void write_samples(ShardWriter& writer, DatasetSpec const& spec, std::uint64_t salt) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(spec.rows()) * spec.row_bytes());
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = sample_byte(salt, i);
  auto const number = byte_size(spec.dtype);
  if (spec.dtype != DType::u8)
    for (std::size_t i = number - 1; i < bytes.size(); i += number) bytes[i] &= 0xbf;
  writer.write(spec.name, 0, spec.rows(), bytes.data());
}

// Camera `i` stands on a circle and looks along +x turned by its angle; `scale` spoils the rotation.
void add_camera(std::vector<float>& c2w, std::int64_t i, float scale) {
  float const angle = 0.3F * static_cast<float>(i + 1), c = scale * std::cos(angle), s = scale * std::sin(angle);
  for (float const value : {c, -s, 0.0F, 2.0F + 0.1F * static_cast<float>(i), s, c, 0.0F, 0.5F * static_cast<float>(i), 0.0F, 0.0F, scale,
                            1.0F, 0.0F, 0.0F, 0.0F, 1.0F})
    c2w.push_back(value);
}

std::vector<float> cameras(std::int64_t count, float scale) {
  std::vector<float> c2w;
  for (std::int64_t i = 0; i < count; ++i) add_camera(c2w, i, scale);
  return c2w;
}

std::vector<float> intrinsics(std::int64_t count, std::int64_t height, std::int64_t width) {
  std::vector<float> result;
  for (std::int64_t i = 0; i < count; ++i)
    for (float const value : {static_cast<float>(width) + 0.25F * static_cast<float>(i % 4), static_cast<float>(width),
                              0.5F * static_cast<float>(width), 0.5F * static_cast<float>(height)})
      result.push_back(value);
  return result;
}

}  // namespace

void write_pair_shard(std::string const& path, PairShard const& s) {
  DatasetSpec const latents{"latents", s.latent_dtype, {s.rows, s.tokens, s.dim}};
  DatasetSpec const images{"target_images", DType::u8, {s.rows, s.targets, s.height, s.width, 3}};
  DatasetSpec const alpha{"target_alpha", DType::u8, {s.rows, s.targets, s.height, s.width}};
  DatasetSpec const env{"env", DType::f16, {s.env_rows, s.env_height, s.env_width, 3}};
  std::vector<DatasetSpec> specs = {latents,
                                    images,
                                    env,
                                    {"target_c2w", DType::f32, {s.rows, s.targets, 4, 4}},
                                    {"target_fxfycxcy", DType::f32, {s.rows, s.targets, 4}},
                                    {"env_row", DType::i64, {s.rows}},
                                    {"world_to_norm", DType::f32, {s.rows, 4, 4}},
                                    {"row/object", DType::name, {s.rows}},
                                    {"row/light", DType::name, {s.rows}},
                                    {"row/view_set", DType::i64, {s.rows}},
                                    {"pairs", DType::i64, {static_cast<std::int64_t>(s.pairs.size() / 2), 2}}};
  if (s.alpha) specs.push_back(alpha);
  ShardWriter writer(path, ShardKind::pair, specs, {s.producer, s.mean, s.deviation, "made for a test"});
  write_samples(writer, latents, s.salt);
  write_samples(writer, images, s.salt + 100);
  if (s.alpha) write_samples(writer, alpha, s.salt + 200);
  write_samples(writer, env, s.salt + 300);
  writer.write("target_c2w", 0, s.rows, cameras(s.rows * s.targets, s.camera_scale).data());
  writer.write("target_fxfycxcy", 0, s.rows, intrinsics(s.rows * s.targets, s.height, s.width).data());
  writer.write("world_to_norm", 0, s.rows, cameras(s.rows, 1).data());
  std::vector<std::int64_t> env_rows, view_sets;
  std::vector<std::string> objects, lights;
  for (std::int64_t row = 0; row < s.rows; ++row) {
    env_rows.push_back(row == 0 ? s.env_row_of_row_0 : row % std::max<std::int64_t>(1, s.env_rows));
    view_sets.push_back(7);
    objects.push_back(fmt::format("object_{}", row / 2));
    lights.push_back(fmt::format("light_{}", row % 2));
  }
  writer.write("env_row", 0, s.rows, env_rows.data());
  writer.write("row/view_set", 0, s.rows, view_sets.data());
  writer.write_names("row/object", objects);
  writer.write_names("row/light", lights);
  writer.write("pairs", 0, static_cast<std::int64_t>(s.pairs.size() / 2), s.pairs.data());
  writer.close();
}

void write_scene_shard(std::string const& path, SceneShard const& s) {
  std::int64_t frames = 0;
  auto const scenes = static_cast<std::int64_t>(s.frame_counts.size());
  std::vector<std::int64_t> first_frame, env_row;
  std::vector<std::string> objects, lights;
  std::vector<float> rotations, c2w;
  for (std::int64_t scene = 0; scene < scenes; ++scene) {
    first_frame.push_back(frames);
    env_row.push_back(scene);
    objects.push_back(fmt::format("object_{}", scene));
    lights.push_back(fmt::format("light_{}", scene));
    for (float const value : {1.0F, 0.0F, 0.0F, 0.0F, 1.0F, 0.0F, 0.0F, 0.0F, 1.0F}) rotations.push_back(value);
    frames += s.frame_counts[static_cast<std::size_t>(scene)];
  }
  DatasetSpec const images{"images", DType::u8, {frames, s.height, s.width, 3}};
  DatasetSpec const alpha{"alpha", DType::u8, {frames, s.height, s.width}};
  DatasetSpec const env{"env", DType::f16, {scenes, s.env_height, s.env_width, 3}};
  std::vector<DatasetSpec> specs = {images,
                                    env,
                                    {"c2w", DType::f32, {frames, 4, 4}},
                                    {"fxfycxcy", DType::f32, {frames, 4}},
                                    {"scene/object", DType::name, {scenes}},
                                    {"scene/light", DType::name, {scenes}},
                                    {"scene/first_frame", DType::i64, {scenes}},
                                    {"scene/frame_count", DType::i64, {scenes}},
                                    {"scene/env_row", DType::i64, {scenes}},
                                    {"scene/env_rotation", DType::f32, {scenes, 3, 3}}};
  if (s.alpha) specs.push_back(alpha);
  ShardWriter writer(path, ShardKind::scene, specs, {});
  write_samples(writer, images, s.salt);
  if (s.alpha) write_samples(writer, alpha, s.salt + 200);
  write_samples(writer, env, s.salt + 300);
  writer.write("c2w", 0, frames, cameras(frames, 1).data());
  writer.write("fxfycxcy", 0, frames, intrinsics(frames, s.height, s.width).data());
  writer.write_names("scene/object", objects);
  writer.write_names("scene/light", lights);
  writer.write("scene/first_frame", 0, scenes, first_frame.data());
  writer.write("scene/frame_count", 0, scenes, s.frame_counts.data());
  writer.write("scene/env_row", 0, scenes, env_row.data());
  writer.write("scene/env_rotation", 0, scenes, rotations.data());
  writer.close();
}

std::string data_error_of(std::function<void()> const& action) {
  try {
    action();
  } catch (DataError const& error) {
    return error.what();
  }
  ADD_FAILURE() << "no DataError was thrown";
  return "";
}

::testing::AssertionResult says(std::string const& message, std::vector<std::string> const& parts) {
  for (auto const& part : parts)
    if (message.find(part) == std::string::npos) return ::testing::AssertionFailure() << "\"" << message << "\" lacks \"" << part << "\"";
  return ::testing::AssertionSuccess();
}

}  // namespace duoflow::data::testing
