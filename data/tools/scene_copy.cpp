#include <algorithm>

#include "data/tools/shard_copy.h"

namespace duoflow::data {
namespace {

constexpr std::int64_t kFramesAtOnce = 16;  // bounds the memory of long scenes

struct FrameData {
  char const* name;
  DType dtype;
  std::vector<std::int64_t> shape;  // of one frame
};

std::vector<FrameData> frame_datasets(SceneSet const& form) {
  std::vector<FrameData> datasets = {
      {"images", DType::u8, {form.height, form.width, 3}}, {"c2w", DType::f32, {4, 4}}, {"fxfycxcy", DType::f32, {4}}};
  if (form.has_alpha) datasets.push_back({"alpha", DType::u8, {form.height, form.width}});
  if (form.env_per_frame) {
    datasets.push_back({"env_ldr", DType::u8, {form.env_height, form.env_width, 3}});
    datasets.push_back({"env_hdr", DType::u8, {form.env_height, form.env_width, 3}});
  }
  return datasets;
}

DatasetSpec with_rows(FrameData const& data, std::int64_t rows) {
  DatasetSpec spec{data.name, data.dtype, {rows}};
  spec.shape.insert(spec.shape.end(), data.shape.begin(), data.shape.end());
  return spec;
}

std::vector<DatasetSpec> scene_datasets(SceneSet const& form, std::int64_t scenes, std::int64_t frames,
                                        std::int64_t maps) {
  std::vector<DatasetSpec> specs = {
      {"scene/object", DType::name, {scenes}},     {"scene/light", DType::name, {scenes}},
      {"scene/first_frame", DType::i64, {scenes}}, {"scene/frame_count", DType::i64, {scenes}},
      {"scene/env_row", DType::i64, {scenes}},     {"scene/env_rotation", DType::f32, {scenes, 3, 3}}};
  for (auto const& data : frame_datasets(form)) specs.push_back(with_rows(data, frames));
  if (maps > 0) specs.push_back({"env", DType::f16, {maps, form.env_height, form.env_width, 3}});
  return specs;
}

struct SceneTable {
  std::vector<std::string> object, light;
  std::vector<std::int64_t> first_frame, frame_count, env_row;
  std::vector<float> env_rotation;
  std::int64_t frames = 0;
};

SceneTable make_table(std::span<Unit const> units, LightMaps& maps) {
  SceneTable table;
  for (auto const& unit : units) {
    auto const& scene = unit.scene();
    table.object.push_back(scene.object);
    table.light.push_back(scene.light);
    table.first_frame.push_back(table.frames);
    table.frame_count.push_back(scene.frame_count);
    table.env_row.push_back(scene.env_row < 0 ? -1 : maps.add(*unit.folder, scene.shard, scene.env_row));
    table.env_rotation.insert(table.env_rotation.end(), scene.env_rotation, scene.env_rotation + 9);
    table.frames += scene.frame_count;
  }
  return table;
}

void write_table(ShardWriter& writer, SceneTable const& table) {
  auto const scenes = std::ssize(table.object);
  writer.write_names("scene/object", table.object);
  writer.write_names("scene/light", table.light);
  writer.write("scene/first_frame", 0, scenes, table.first_frame.data());
  writer.write("scene/frame_count", 0, scenes, table.frame_count.data());
  writer.write("scene/env_row", 0, scenes, table.env_row.data());
  writer.write("scene/env_rotation", 0, scenes, table.env_rotation.data());
}

void copy_frames(ShardWriter& writer, Unit const& unit, std::int64_t first_row) {
  auto const& scene = unit.scene();
  std::vector<std::byte> bytes;
  for (auto const& data : frame_datasets(unit.folder->scenes)) {
    for (std::int64_t done = 0; done < scene.frame_count; done += kFramesAtOnce) {
      auto const frames = std::min(kFramesAtOnce, scene.frame_count - done);
      bytes.resize(static_cast<std::size_t>(frames) * with_rows(data, frames).row_bytes());
      unit.folder->reader->read_rows(scene.shard, data.name, scene.first_frame + done, frames, bytes.data());
      writer.write(data.name, first_row + done, frames, bytes.data());
    }
  }
}

}  // namespace

UnitSize size_of_scene(Unit const& unit) {
  auto const& form = unit.folder->scenes;
  UnitSize size;
  for (auto const& data : frame_datasets(form)) size.own += with_rows(data, 1).row_bytes();
  size.own *= static_cast<std::uint64_t>(unit.scene().frame_count);
  if (unit.scene().env_row >= 0)
    size.light_map = static_cast<std::uint64_t>(form.env_height * form.env_width * 3) * byte_size(DType::f16);
  return size;
}

void write_scenes(std::string const& path, std::span<Unit const> units, Attributes const& attributes) {
  auto const& form = units.front().folder->scenes;
  LightMaps maps(form.env_height, form.env_width);
  auto const table = make_table(units, maps);
  ShardWriter writer(path, ShardKind::scene, scene_datasets(form, std::ssize(units), table.frames, maps.count()),
                     attributes);
  write_table(writer, table);
  maps.write(writer);
  for (std::size_t i = 0; i < units.size(); ++i) copy_frames(writer, units[i], table.first_frame[i]);
  writer.close();
}

}  // namespace duoflow::data
