// A scene's metadata and, after a zero byte, lights.json: what an ingest of an LVSM folder parses, with a remap.

#include <filesystem>
#include <stdexcept>

#include "data/error.h"
#include "data/ingest/light_sources.h"
#include "data/ingest/lvsm_scene.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

bool read_scene_json(std::string const& input) {
  static MemoryFolder const folder;
  auto const end = input.find('\0');
  folder.put("metadata/cube_env_0.json", input.substr(0, end));
  folder.put("envmaps/lights.json", end == std::string::npos ? "{}" : input.substr(end + 1));
  data::SourceFiles const files;
  data::Remaps const remaps = {{"/far", folder.path()}};
  bool whole = false;
  auto const light = read_or_refused<data::DataError>([&] {
    data::LightSources const lights(files, folder / "envmaps", "", remaps);
    whole = data::read_lvsm_scene(files, {folder / "metadata/cube_env_0.json", folder.path()}, remaps, &lights)
                .problems.empty();
  });
  auto const scene =
      data::read_lvsm_scene(files, {folder / "metadata/cube_env_0.json", folder.path()}, remaps, nullptr);
  for (auto const& frame : scene.frames)  // a relative path stays inside
    if (frame.image.starts_with(folder.path()) &&
        !std::filesystem::path(frame.image).lexically_normal().string().starts_with(folder.path()))
      throw std::logic_error("a path that climbs out of the scene's folder: " + frame.image);
  return light && (whole || scene.problems.empty());
}

std::string frame_of(std::string const& path, std::string const& w2c) {
  return R"({"image_path": ")" + path + R"(", "fxfycxcy": [10, 10.5, 4, 4e0], "w2c": )" + w2c + "}";
}

std::vector<std::string> scene_json_seeds() {
  std::string const w2c = "[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]";
  std::string const lights =
      R"({"env_0": {"env_map": "/far/envmaps/a.exr", "rotation_euler": [0, 0.5, 1], "strength": 2}})";
  std::string const zero(1, '\0');
  return {R"({"scene_name": "a", "frames": [)" + frame_of("/far/images/0.png", w2c) + "]}" + zero + "{}",
          R"({"frames": [)" + frame_of("images/0.png", w2c) + ", " + frame_of("../../x.png", "[[NaN, -Infinity]]") +
              "]}" + zero + lights,
          R"({"frames": [{"image_path": "a\\", "w2c": [NaN, Infinity]}, 7, []]})" + zero +
              R"({"cube_env_0": {"env_map": "../../a"}})",
          std::string(60, '[') + std::string(60, ']'), R"({"frames": [], "frames": []})"};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(scene_json, duoflow::fuzz::read_scene_json, duoflow::fuzz::scene_json_seeds);
