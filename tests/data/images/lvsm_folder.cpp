#include "lvsm_folder.h"

#include <filesystem>
#include <map>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "data/images/image_io.h"

namespace duoflow::data::testing {
namespace {

// Files of pictures that differ; encoded once, since every write is synced to disk.
std::string const& png(std::int64_t height, std::int64_t width, std::int64_t channels, std::uint64_t salt) {
  static std::map<std::uint64_t, std::string> files;
  std::string& bytes = files[salt];
  if (bytes.empty()) {
    Image8 image{height, width, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * channels))};
    for (std::size_t i = 0; i < image.pixels.size(); ++i) { image.pixels[i] = sample_byte(salt, i); }
    TemporaryFolder const folder;
    write_png(folder / "a.png", image);
    bytes = file_bytes(folder / "a.png");
  }
  return bytes;
}

// The camera of frame f stands at (0, 0, -2 - f) and looks along +Z.
std::string frame_json(std::string const& scene, int frame) {
  return fmt::format(R"({{"image_path": "{}/images/{}/{:05d}.png", "fxfycxcy": [10, 10, 4, 4],
     "w2c": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, {}], [0, 0, 0, 1]]}})",
                     kListedPrefix, scene, frame, 2 + frame);
}

}  // namespace

LvsmFolder::LvsmFolder() {
  namespace fs = std::filesystem;
  fs::create_directories(path("metadata"));
  std::string list;
  std::uint64_t salt = 0;
  for (std::string const object : {"cube", "ball"}) {  // not in order
    for (std::string const light : {"env_1", "env_0", "env_0_1"}) {
      std::string const scene = object + "_" + light;
      fs::create_directories(path("images/" + scene));
      fs::create_directories(path("envmaps/" + scene));
      for (int frame = 0; frame < 2; ++frame) {
        put_bytes(picture(scene, frame), png(8, 8, 4, ++salt));
        put_bytes(light_map(scene, frame, "ldr"), png(4, 8, 3, ++salt));
        put_bytes(light_map(scene, frame, "hdr"), png(4, 8, 3, ++salt));
      }
      put_bytes(path("metadata/" + scene + ".json"),
                fmt::format(R"({{"scene_name": "{}", "frames": [{}, {}]}})", scene, frame_json(scene, 0), frame_json(scene, 1)));
      list += fmt::format("{}/metadata/{}.json\n", kListedPrefix, scene);
    }
  }
  put_bytes(path("full_list.txt"), list);
}

std::string LvsmFolder::picture(std::string const& scene, int frame) const { return path(fmt::format("images/{}/{:05d}.png", scene, frame)); }

std::string LvsmFolder::light_map(std::string const& scene, int frame, char const* kind) const {
  return path(fmt::format("envmaps/{}/{:05d}_{}.png", scene, frame, kind));
}

void LvsmFolder::edit_metadata(std::string const& scene, std::string const& from, std::string const& to) const {
  std::string const file = path("metadata/" + scene + ".json");
  std::string text = file_bytes(file);
  auto const at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  put_bytes(file, text.replace(at, from.size(), to));
}

void LvsmFolder::add_line(std::string const& line) const { put_bytes(path("full_list.txt"), file_bytes(path("full_list.txt")) + line + "\n"); }

IngestOptions LvsmFolder::options() const {
  IngestOptions options;
  options.scenes = {path("full_list.txt")};
  options.remaps = {{kListedPrefix, root()}};
  options.out = path("out");
  options.scenes_per_shard = 2;
  return options;
}

}  // namespace duoflow::data::testing
