#include "data/lvsm_shard.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <fmt/format.h>

#include "data/environment_map.h"
#include "data/error.h"
#include "data/shard_writer.h"

namespace duoflow::data {
namespace {

std::vector<DatasetSpec> datasets(std::int64_t scenes, std::int64_t frames, ShardFormat const& format) {
  std::vector<DatasetSpec> out{{"images", DType::u8, {frames, format.size, format.size, 3}}};
  if (format.alpha) { out.push_back({"alpha", DType::u8, {frames, format.size, format.size}}); }
  std::vector<DatasetSpec> const rest{{"c2w", DType::f32, {frames, 4, 4}},
                                      {"fxfycxcy", DType::f32, {frames, 4}},
                                      {"env_ldr", DType::u8, {frames, format.env_height, format.env_width, 3}},
                                      {"env_hdr", DType::u8, {frames, format.env_height, format.env_width, 3}},
                                      {"scene/object", DType::name, {scenes}},
                                      {"scene/light", DType::name, {scenes}},
                                      {"scene/first_frame", DType::i64, {scenes}},
                                      {"scene/frame_count", DType::i64, {scenes}},
                                      {"scene/env_row", DType::i64, {scenes}},
                                      {"scene/env_rotation", DType::f32, {scenes, 3, 3}}};
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

void write_scene_table(ShardWriter& writer, std::span<LvsmScene const> scenes) {
  std::vector<std::string> objects, lights;
  std::vector<std::int64_t> first_frames, frame_counts;
  std::vector<float> rotations;
  std::int64_t frames = 0;
  for (LvsmScene const& scene : scenes) {
    objects.push_back(scene.object);
    lights.push_back(scene.light);
    first_frames.push_back(frames);
    frame_counts.push_back(static_cast<std::int64_t>(scene.frames.size()));
    frames += frame_counts.back();
    for (int i = 0; i < 9; ++i) { rotations.push_back(i % 4 == 0 ? 1.0F : 0.0F); }
  }
  auto const count = static_cast<std::int64_t>(scenes.size());
  std::vector<std::int64_t> const per_frame(scenes.size(), -1);
  writer.write_names("scene/object", objects);
  writer.write_names("scene/light", lights);
  writer.write("scene/first_frame", 0, count, first_frames.data());
  writer.write("scene/frame_count", 0, count, frame_counts.data());
  writer.write("scene/env_row", 0, count, per_frame.data());
  writer.write("scene/env_rotation", 0, count, rotations.data());
}

void write_picture(ShardWriter& writer, std::int64_t row, LvsmFrame const& frame, ShardFormat const& format) {
  Image8 const stored = read_image(frame.image);
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

void write_light(ShardWriter& writer, std::int64_t row, LvsmFrame const& frame, ShardFormat const& format) {
  EncodedMap pair{over_white(read_image(frame.env_ldr)), over_white(read_image(frame.env_hdr))};
  if (pair.ldr.height != format.env_height || pair.ldr.width != format.env_width) {
    // Averages of encoded values would lose light: resized as radiance, encoded again.
    pair = encode_pair(resize_map(recover_linear(pair.ldr, pair.log_map), format.env_height, format.env_width));
  }
  writer.write("env_ldr", row, 1, pair.ldr.pixels.data());
  writer.write("env_hdr", row, 1, pair.log_map.pixels.data());
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

void write_lvsm_shard(std::string const& path, std::span<LvsmScene const> scenes, ShardFormat const& format) {
  std::int64_t frames = 0;
  for (LvsmScene const& scene : scenes) { frames += static_cast<std::int64_t>(scene.frames.size()); }
  Attributes attributes;
  attributes.note = fmt::format("LVSM scene folders, pictures of {0} x {0} over white, light maps per frame of {1} x {2}", format.size, format.env_height,
                                format.env_width);
  ShardWriter writer(path, ShardKind::scene, datasets(static_cast<std::int64_t>(scenes.size()), frames, format), attributes);
  write_scene_table(writer, scenes);
  std::int64_t row = 0;
  for (LvsmScene const& scene : scenes) {
    for (std::size_t i = 0; i < scene.frames.size(); ++i, ++row) {
      try {
        write_picture(writer, row, scene.frames[i], format);
        write_light(writer, row, scene.frames[i], format);
      } catch (DataError const& error) {
        throw DataError(fmt::format("scene {} frame {}: {}", scene.name, i, error.what()));
      }
    }
  }
  writer.close();
}

}  // namespace duoflow::data
