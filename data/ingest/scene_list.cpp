#include "data/ingest/scene_list.h"

#include <array>
#include <cstddef>
#include <filesystem>
#include <set>
#include <sstream>
#include <string_view>

#include <fmt/format.h>

#include "data/error.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;

std::string without_slash(std::string path) {
  path = fs::path(path).lexically_normal().string();
  while (path.size() > 1 && path.back() == '/') { path.pop_back(); }
  return path;
}

void add_list(SourceFiles const& files, std::string const& list, IngestOptions const& options, std::vector<ListedScene>& out) {
  std::istringstream lines(files.read(list));
  std::string const folder = fs::path(list).parent_path().string();
  for (std::string line; std::getline(lines, line);) {
    auto const first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos) { continue; }
    line = line.substr(first, line.find_last_not_of(" \t\r") + 1 - first);
    // A list of a folder may name what lies beside it; an archive is closed.
    if (files.in_archive(list) && climbs(line)) {
      throw DataError(fmt::format("{} names {} (which leads out of the archive), correct the list", list, line));
    }
    out.push_back({located(files, (fs::path(folder) / remapped(line, options.remaps)).lexically_normal().string(), folder), folder});
  }
}

// What a folder holds: its list, else its metadata, else what its subfolders hold.
std::size_t add_folder(SourceFiles const& files, std::string const& folder, int depth, IngestOptions const& options, std::vector<ListedScene>& out) {
  constexpr int kDeepest = 2;
  std::string const list = (fs::path(folder) / "full_list.txt").string(), metadata = (fs::path(folder) / "metadata").string();
  std::size_t const before = out.size();
  if (files.is_file(list)) {
    add_list(files, list, options, out);
  } else if (files.is_folder(metadata)) {
    for (std::string const& name : files.entries(metadata)) {
      if (name.ends_with(".json")) { out.push_back({(fs::path(metadata) / name).string(), folder}); }
    }
  } else {
    std::size_t sets = 0;
    for (std::string const& name : depth < kDeepest ? files.entries(folder) : std::vector<std::string>{}) {
      std::string const below = (fs::path(folder) / name).string();
      if (files.is_folder(below)) { sets += add_folder(files, below, depth + 1, options, out); }
    }
    if (sets > 1 && options.say) { options.say(fmt::format("{}: {} scene folders below it become one data set (name one of them to keep a split)", folder, sets)); }
    return sets;
  }
  if (options.say) { options.say(fmt::format("{}: {} scenes listed", folder, out.size() - before)); }
  return 1;
}

}  // namespace

std::pair<std::string, std::string> split_scene_name(std::string const& scene) {
  static constexpr std::array<std::string_view, 7> tags{"_white_env_", "_env_", "_white_pl_", "_rgb_pl_", "_multi_pl_", "_area_", "_combined_"};
  for (std::string_view const tag : tags) {
    if (auto const at = scene.rfind(tag); at != std::string::npos) { return {scene.substr(0, at), scene.substr(at + 1)}; }
  }
  auto const at = scene.rfind('_');
  if (at == std::string::npos) { return {scene, ""}; }
  return {scene.substr(0, at), scene.substr(at + 1)};
}

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

bool climbs(std::string const& path) {
  fs::path const normal = fs::path(path).lexically_normal();
  return normal.is_relative() && !normal.empty() && *normal.begin() == "..";
}

std::string located(SourceFiles const& files, std::string const& path, std::string const& near) {
  if (files.is_file(path) || !files.in_archive(near)) { return path; }
  auto const moved = files.moved(path, near);
  return moved ? (fs::path(moved->second) / fs::path(path).lexically_relative(moved->first)).string() : path;
}

std::vector<ListedScene> listed_scenes(SourceFiles& files, IngestOptions const& options) {
  std::vector<ListedScene> found;
  for (std::string const& given : options.scenes) {
    std::string const source = fs::absolute(given).lexically_normal().string();
    bool const folder = files.is_folder(source);
    if (!folder && files.is_file(source) && is_archive(source)) { files.open_archive(source); }
    if (!files.is_folder(source)) {
      add_list(files, source, options, found);
    } else if (add_folder(files, source, 0, options, found) == 0) {
      throw DataError(fmt::format("{} holds no full_list.txt and no metadata folder (nor do its subfolders), name an LVSM scene folder", given));
    }
  }
  std::vector<ListedScene> out;
  std::set<std::string> seen;
  for (ListedScene const& scene : found) {
    std::error_code ignored;  // of a path that does not exist: reported when it is read
    auto const same = fs::weakly_canonical(fs::absolute(scene.path), ignored);
    if (seen.insert(same.empty() ? scene.path : same.string()).second) { out.push_back(scene); }
  }
  return out;
}

}  // namespace duoflow::data
