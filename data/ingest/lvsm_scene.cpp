#include "data/ingest/lvsm_scene.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <string_view>
#include <tuple>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "data/cameras.h"
#include "data/error.h"
#include "data/ingest/scene_list.h"
#include "data/shards/shard_schema.h"
#include "text/json.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// JSON knows no NaN, but Python writes it: null stands for it here.
double number_of(json const& value) { return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>(); }

// Metadata, with NaN and Infinity (outside of strings) read as null. std::invalid_argument with the reason alone.
json parse_metadata(std::string_view text) {
  static constexpr std::array<std::string_view, 3> kWords{"-Infinity", "Infinity", "NaN"};
  std::string strict;
  strict.reserve(text.size());
  bool quoted = false;
  while (!text.empty()) {
    auto const* const word = quoted ? kWords.end() : std::find_if(kWords.begin(), kWords.end(), [&](auto candidate) { return text.starts_with(candidate); });
    std::size_t const taken = word != kWords.end() ? word->size() : quoted && text[0] == '\\' && text.size() > 1 ? 2 : 1;  // an escape is no quote
    if (text[0] == '"') { quoted = !quoted; }
    strict += word != kWords.end() ? "null" : text.substr(0, taken);
    text.remove_prefix(taken);
  }
  return text::parse_json<json>(strict);
}

// A path of the metadata, relative to `root` unless it is absolute, as the format has it. DataError for a relative one that climbs out.
std::string inside(std::string const& root, std::string const& path) {
  if (climbs(path)) { throw DataError(fmt::format("{} leads out of the scene's folder {} (relative paths must stay in it)", path, root)); }
  return (fs::path(root) / path).string();
}

// The numbers of w2c, 3 or 4 rows of 4. DataError saying what is there instead.
std::array<double, 16> w2c_of(json const& frame) {
  json const& rows = frame.at("w2c");
  if (!rows.is_array() || rows.size() < 3 || rows.size() > 4) { throw DataError(fmt::format("w2c has {} rows (3 or 4 are needed)", rows.size())); }
  std::array<double, 16> out{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  for (std::size_t row = 0; row < rows.size(); ++row) {
    if (!rows[row].is_array() || rows[row].size() != 4) { throw DataError(fmt::format("row {} of w2c has {} numbers (4 are needed)", row, rows[row].size())); }
    for (std::size_t column = 0; column < 4; ++column) { out[4 * row + column] = number_of(rows[row][column]); }
  }
  return out;
}

std::array<double, 4> intrinsics_of(json const& frame) {
  json const& numbers = frame.at("fxfycxcy");
  if (!numbers.is_array() || numbers.size() != 4) { throw DataError(fmt::format("fxfycxcy has {} numbers (4 are needed)", numbers.size())); }
  std::array<double, 4> out{};
  for (std::size_t i = 0; i < 4; ++i) { out[i] = number_of(numbers[i]); }
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

// Why a file may be missing, and the remap that would find it.
std::string hint(SourceFiles const& files, std::string const& path, std::string const& near, Remaps const& remaps) {
  if (auto const moved = files.moved(path, near)) { return fmt::format(" (paths of another machine? it lies here: give --remap {}={})", moved->first, moved->second); }
  return remaps.empty() ? " (no --remap is given)" : "";
}

// A file's size; a problem of the scene when it is missing or damaged.
ImageSize checked(LvsmScene& scene, std::int64_t frame, char const* what, std::string const& path, SourceFiles const& files, FileTable const& table,
                  Remaps const& remaps) {
  FileFacts const& facts = table.at(path);
  if (facts.missing) {
    scene.report(frame, fmt::format("{} {} is missing{}", what, path, hint(files, path, scene.root, remaps)));
  } else if (!facts.problem.empty()) {
    scene.report(frame, fmt::format("{} {}", what, facts.problem));
  }
  return facts.size;
}

// Focal lengths and centres in units of the picture's size look like this; no camera of this many pixels has so few.
constexpr double kLargestNormalised = 2.5;
constexpr std::int64_t kSmallestPicture = 8;

std::string intrinsics_problem(LvsmFrame const& frame) {
  auto const& k = frame.fxfycxcy;
  bool const small = std::all_of(k.begin(), k.end(), [](double x) { return x > 0 && x <= kLargestNormalised; });
  if (!small || frame.size.height < kSmallestPicture || frame.size.width < kSmallestPicture) { return ""; }
  return fmt::format("fxfycxcy {:.4g} {:.4g} {:.4g} {:.4g} looks normalised by the picture's size (pixels are needed), multiply by {} x {}", k[0], k[1], k[2],
                     k[3], frame.size.width, frame.size.height);
}

void check_camera(LvsmScene& scene, std::int64_t index, LvsmFrame& frame) {
  if (!frame.has_camera) { return; }  // reported already
  std::array<float, 4> fxfycxcy{};
  for (std::size_t i = 0; i < 4; ++i) { fxfycxcy[i] = static_cast<float>(frame.fxfycxcy[i]); }
  // A missing picture is one problem, not two: any principal point passes then.
  long const height = frame.size.height > 0 ? frame.size.height : std::numeric_limits<long>::max();
  long const width = frame.size.width > 0 ? frame.size.width : std::numeric_limits<long>::max();
  std::string problem = intrinsics_problem(frame);
  if (problem.empty()) { problem = camera_problem(as_float(frame.w2c).data(), fxfycxcy.data(), height, width); }
  if (problem.empty()) {
    frame.c2w = as_float(inverse(frame.w2c));
  } else {
    scene.report(index, fmt::format("camera (w2c, fxfycxcy): {}", problem));
  }
}

// Views from one place, in one direction: legal, but they teach nothing new.
void warn_of_equal_cameras(LvsmScene& scene) {
  std::map<std::pair<std::array<double, 16>, std::array<double, 4>>, std::size_t> first_of;
  for (std::size_t i = 0; i < scene.frames.size(); ++i) {
    LvsmFrame const& frame = scene.frames[i];
    if (!frame.has_camera || std::isnan(frame.w2c[0])) { continue; }
    auto const [first, is_new] = first_of.emplace(std::pair(frame.w2c, frame.fxfycxcy), i);
    if (!is_new) { scene.warnings.push_back({scene.name, static_cast<std::int64_t>(i), fmt::format("its camera is that of frame {} (duplicate)", first->second)}); }
  }
}

void read_frame(LvsmScene& scene, std::int64_t index, json const& source, SourceFiles const& files, Remaps const& remaps) {
  LvsmFrame& frame = scene.frames.emplace_back();
  try {
    if (!source.is_object() || !source.contains("image_path") || !source["image_path"].is_string()) { throw DataError("it has no image_path"); }
    frame.image = located(files, inside(scene.root, remapped(source["image_path"].get<std::string>(), remaps)), scene.root);
  } catch (DataError const& error) {
    scene.report(index, error.what());
  }
  if (!scene.source) {
    auto const map = [&](char const* kind) { return (fs::path(scene.root) / "envmaps" / scene.name / fmt::format("{:05d}_{}.png", index, kind)).string(); };
    frame.env_ldr = map("ldr");
    frame.env_hdr = map("hdr");
  }
  try {
    frame.fxfycxcy = intrinsics_of(source);
    frame.w2c = w2c_of(source);
    frame.has_camera = true;
  } catch (std::exception const& error) {
    scene.report(index, fmt::format("camera: {}", error.what()));
  }
}

}  // namespace

LvsmScene read_lvsm_scene(SourceFiles const& files, ListedScene const& listed, Remaps const& remaps, LightSources const* lights) {
  std::string const& path = listed.path;
  LvsmScene scene;
  scene.name = fs::path(path).stem().string();
  if (scene.name.empty() || scene.name == "." || scene.name == "..") {
    scene.report(-1, fmt::format("metadata {} gives it no name (the file's without .json), rename it", path));
    return scene;
  }
  scene.root = fs::path(path).parent_path().parent_path().string();
  std::tie(scene.object, scene.light) = split_scene_name(scene.name);
  std::size_t const longest = std::max(scene.object.size(), scene.light.size());
  if (longest >= kNameBytes) { scene.report(-1, fmt::format("its name has a part of {} characters (shards hold {}), rename it", longest, kNameBytes - 1)); }
  if (!files.is_file(path)) {
    auto const moved = files.moved(path, listed.folder);
    scene.report(-1, fmt::format("metadata {} is missing ({})", path, moved ? fmt::format("paths of another machine? it lies here: give --remap {}={}", moved->first, moved->second)
                                                                              : "correct the list, or give --remap OLD=NEW with an OLD that this path starts with"));
    return scene;
  }
  json frames;
  try {
    frames = parse_metadata(files.read(path)).at("frames");
  } catch (std::exception const& error) {
    scene.report(-1, fmt::format("metadata {} cannot be read ({})", path, error.what()));
    return scene;
  }
  if (!frames.is_array() || frames.empty()) {
    scene.report(-1, fmt::format("metadata {} has no frames", path));
    return scene;
  }
  if (lights != nullptr) {
    try {
      scene.source = lights->find(scene.name, scene.object, scene.light);
    } catch (DataError const& error) {
      scene.report(-1, error.what());
      return scene;
    }
  }
  for (std::size_t i = 0; i < frames.size(); ++i) { read_frame(scene, static_cast<std::int64_t>(i), frames[i], files, remaps); }
  return scene;
}

void add_wishes(LvsmScene const& scene, std::map<std::string, FileWish>& wanted) {
  for (LvsmFrame const& frame : scene.frames) {
    if (!frame.image.empty()) { wanted.try_emplace(frame.image, FileWish{FileWish::Kind::picture, 1}); }
    if (frame.env_ldr.empty()) { continue; }
    wanted.try_emplace(frame.env_ldr, FileWish{FileWish::Kind::light_code, 1});
    wanted.try_emplace(frame.env_hdr, FileWish{FileWish::Kind::light_code, 1});
  }
  if (scene.source) {
    auto& wish = wanted.try_emplace(scene.source->file, FileWish{FileWish::Kind::light_source, scene.source->strength}).first->second;
    wish.strength = std::max(wish.strength, scene.source->strength);
  }
}

void complete(LvsmScene& scene, SourceFiles const& files, FileTable const& table, Remaps const& remaps) {
  if (scene.source) { checked(scene, -1, "light map", scene.source->file, files, table, remaps); }
  for (std::size_t i = 0; i < scene.frames.size(); ++i) {
    LvsmFrame& frame = scene.frames[i];
    auto const index = static_cast<std::int64_t>(i);
    if (!frame.image.empty()) { frame.size = checked(scene, index, "picture", frame.image, files, table, remaps); }
    if (!scene.source) {
      frame.env_size = checked(scene, index, "light map", frame.env_ldr, files, table, remaps);
      ImageSize const log_size = checked(scene, index, "light map", frame.env_hdr, files, table, remaps);
      if (frame.env_size.height > 0 && log_size.height > 0 && (frame.env_size.height != log_size.height || frame.env_size.width != log_size.width)) {
        scene.report(index, fmt::format("light maps {} and {} are {} x {} and {} x {} (they must be a pair)", frame.env_ldr, frame.env_hdr,
                                        frame.env_size.height, frame.env_size.width, log_size.height, log_size.width));
      }
    }
    check_camera(scene, index, frame);
  }
  warn_of_equal_cameras(scene);
  std::stable_sort(scene.problems.begin(), scene.problems.end(), [](IngestProblem const& a, IngestProblem const& b) { return a.frame < b.frame; });
}

}  // namespace duoflow::data
