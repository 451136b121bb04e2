#include "data/lvsm_scene.h"

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <set>
#include <sstream>
#include <tuple>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "data/cameras.h"
#include "data/error.h"
#include "data/file.h"
#include "data/shard_schema.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string without_slash(std::string path) {
  path = fs::path(path).lexically_normal().string();
  while (path.size() > 1 && path.back() == '/') { path.pop_back(); }
  return path;
}

// The numbers of w2c, 3 or 4 rows of 4. DataError saying what is there instead.
std::array<double, 16> w2c_of(json const& frame) {
  json const& rows = frame.at("w2c");
  if (!rows.is_array() || rows.size() < 3 || rows.size() > 4) { throw DataError(fmt::format("w2c has {} rows (3 or 4 are needed)", rows.size())); }
  std::array<double, 16> out{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  for (std::size_t row = 0; row < rows.size(); ++row) {
    if (!rows[row].is_array() || rows[row].size() != 4) { throw DataError(fmt::format("row {} of w2c has {} numbers (4 are needed)", row, rows[row].size())); }
    for (std::size_t column = 0; column < 4; ++column) { out[4 * row + column] = rows[row][column].get<double>(); }
  }
  return out;
}

std::array<float, 16> as_float(std::array<double, 16> const& m) {
  std::array<float, 16> out{};
  for (std::size_t i = 0; i < 16; ++i) { out[i] = static_cast<float>(m[i]); }
  return out;
}

// Of [A b; 0 1]: [A^-1, -A^-1 b; 0 1] by cofactors, in double, as the reference inverts. A is known to be a rotation.
std::array<double, 16> inverse(std::array<double, 16> const& m) {
  auto const cofactor = [&](std::size_t row, std::size_t column) {
    std::size_t const r1 = (row + 1) % 3, r2 = (row + 2) % 3, c1 = (column + 1) % 3, c2 = (column + 2) % 3;
    return m[4 * r1 + c1] * m[4 * r2 + c2] - m[4 * r1 + c2] * m[4 * r2 + c1];
  };
  double const determinant = m[0] * cofactor(0, 0) + m[1] * cofactor(0, 1) + m[2] * cofactor(0, 2);
  std::array<double, 16> out{};
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t column = 0; column < 3; ++column) {
      out[4 * row + column] = cofactor(column, row) / determinant;
      out[4 * row + 3] -= out[4 * row + column] * m[4 * column + 3];
    }
  }
  out[15] = 1;
  return out;
}

// A picture's size; a problem of the scene when it is missing or damaged.
ImageSize checked(LvsmScene& scene, std::int64_t frame, char const* what, std::string const& path, Remaps const& remaps) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    scene.report(frame, fmt::format("{} {} is missing{}", what, path, remaps.empty() ? " (no --remap is given)" : ""));
    return {};
  }
  try {
    return check_image(path);
  } catch (std::exception const& error) {
    scene.report(frame, fmt::format("{} {}", what, error.what()));
  }
  return {};
}

void read_camera(LvsmScene& scene, std::int64_t index, json const& source, LvsmFrame& frame) {
  try {
    frame.fxfycxcy = source.at("fxfycxcy").get<std::array<double, 4>>();
    auto const w2c = w2c_of(source);
    std::array<float, 4> fxfycxcy{};
    for (std::size_t i = 0; i < 4; ++i) { fxfycxcy[i] = static_cast<float>(frame.fxfycxcy[i]); }
    // A missing picture is one problem, not two: any principal point passes then.
    long const height = frame.size.height > 0 ? frame.size.height : std::numeric_limits<long>::max();
    long const width = frame.size.width > 0 ? frame.size.width : std::numeric_limits<long>::max();
    std::string const problem = camera_problem(as_float(w2c).data(), fxfycxcy.data(), height, width);
    if (!problem.empty()) {
      scene.report(index, fmt::format("camera (w2c, fxfycxcy): {}", problem));
      return;
    }
    frame.c2w = as_float(inverse(w2c));
  } catch (std::exception const& error) {
    scene.report(index, fmt::format("camera: {}", error.what()));
  }
}

void read_frame(LvsmScene& scene, std::int64_t index, json const& source, fs::path const& root, Remaps const& remaps) {
  LvsmFrame& frame = scene.frames.emplace_back();
  if (source.is_object() && source.contains("image_path") && source["image_path"].is_string()) {
    frame.image = (root / remapped(source["image_path"].get<std::string>(), remaps)).string();
    frame.size = checked(scene, index, "picture", frame.image, remaps);
  } else {
    scene.report(index, "it has no image_path");
  }
  auto const map = [&](char const* kind) { return (root / "envmaps" / scene.name / fmt::format("{:05d}_{}.png", index, kind)).string(); };
  frame.env_ldr = map("ldr");
  frame.env_hdr = map("hdr");
  frame.env_size = checked(scene, index, "light map", frame.env_ldr, remaps);
  ImageSize const log_size = checked(scene, index, "light map", frame.env_hdr, remaps);
  if (frame.env_size.height > 0 && log_size.height > 0 && (frame.env_size.height != log_size.height || frame.env_size.width != log_size.width)) {
    scene.report(index, fmt::format("light maps {} and {} are {} x {} and {} x {} (they must be a pair)", frame.env_ldr, frame.env_hdr, frame.env_size.height,
                                    frame.env_size.width, log_size.height, log_size.width));
  }
  read_camera(scene, index, source, frame);
}

}  // namespace

std::string remapped(std::string const& path, Remaps const& remaps) {
  std::string const normal = without_slash(path);
  for (auto const& [from, to] : remaps) {
    std::string const prefix = without_slash(from);
    if (normal == prefix) { return to; }
    std::string const folder = prefix == "/" ? prefix : prefix + "/";
    if (normal.compare(0, folder.size(), folder) == 0) { return (fs::path(to) / normal.substr(folder.size())).string(); }
  }
  return path;
}

std::vector<std::string> listed_scenes(std::vector<std::string> const& lists, Remaps const& remaps) {
  std::vector<std::string> out;
  std::set<std::string> seen;
  for (std::string const& list : lists) {
    std::istringstream lines(read_text(list));
    for (std::string line; std::getline(lines, line);) {
      auto const first = line.find_first_not_of(" \t\r");
      if (first == std::string::npos) { continue; }
      line = line.substr(first, line.find_last_not_of(" \t\r") + 1 - first);
      std::string const path = (fs::path(list).parent_path() / remapped(line, remaps)).lexically_normal().string();
      std::error_code ignored;  // of a path that does not exist: reported when it is read
      auto const same = fs::weakly_canonical(fs::absolute(path), ignored);
      if (seen.insert(same.empty() ? path : same.string()).second) { out.push_back(path); }
    }
  }
  return out;
}

LvsmScene read_lvsm_scene(std::string const& path, Remaps const& remaps) {
  LvsmScene scene;
  scene.name = fs::path(path).stem().string();
  std::tie(scene.object, scene.light) = split_scene_name(scene.name);
  std::size_t const longest = std::max(scene.object.size(), scene.light.size());
  if (longest >= kNameBytes) { scene.report(-1, fmt::format("its name has a part of {} characters (shards hold {}), rename it", longest, kNameBytes - 1)); }
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    scene.report(-1, fmt::format("metadata {} is missing (correct the list, or give --remap OLD=NEW with an OLD that this path starts with)", path));
    return scene;
  }
  json frames;
  try {
    frames = json::parse(read_text(path)).at("frames");
  } catch (std::exception const& error) {
    scene.report(-1, fmt::format("metadata {} cannot be read ({})", path, error.what()));
    return scene;
  }
  if (!frames.is_array() || frames.empty()) {
    scene.report(-1, fmt::format("metadata {} has no frames", path));
    return scene;
  }
  fs::path const root = fs::path(path).parent_path().parent_path();
  for (std::size_t i = 0; i < frames.size(); ++i) { read_frame(scene, static_cast<std::int64_t>(i), frames[i], root, remaps); }
  return scene;
}

}  // namespace duoflow::data
