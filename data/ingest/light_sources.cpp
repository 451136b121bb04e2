#include "data/ingest/light_sources.h"

#include <cmath>
#include <cstddef>
#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "data/error.h"
#include "data/ingest/scene_list.h"
#include "text/json.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

json parse_file(SourceFiles const& files, std::string const& path) {
  try {
    return text::parse_json<json>(files.read(path));
  } catch (std::exception const& error) {
    throw DataError(fmt::format("{} cannot be read ({})", path, error.what()));
  }
}

}  // namespace

std::array<float, 9> env_rotation(std::array<double, 3> const& rotation_euler) {
  std::array<double, 9> out{1, 0, 0, 0, 1, 0, 0, 0, 1};
  for (std::size_t axis = 0; axis < 3; ++axis) {  // X first: each further one is multiplied from the left
    std::size_t const u = (axis + 1) % 3, v = (axis + 2) % 3;
    double const c = std::cos(rotation_euler[axis]), s = std::sin(rotation_euler[axis]);
    for (std::size_t column = 0; column < 3; ++column) {
      double const at_u = out[3 * u + column], at_v = out[3 * v + column];
      out[3 * u + column] = c * at_u - s * at_v;
      out[3 * v + column] = s * at_u + c * at_v;
    }
  }
  std::array<float, 9> rounded{};
  for (std::size_t i = 0; i < 9; ++i) { rounded[i] = static_cast<float>(out[i]); }
  return rounded;
}

LightSources::LightSources(SourceFiles const& files, std::string envmaps, std::string renders, Remaps remaps)
    : files_(files), envmaps_(std::move(envmaps)), renders_(std::move(renders)), remaps_(std::move(remaps)) {
  for (std::string const& folder : {envmaps_, renders_}) {
    if (!folder.empty() && !files_.is_folder(folder)) { throw DataError(fmt::format("{} is no folder (light maps or their env.json are looked for there), correct the path", folder)); }
  }
  std::string const table = (fs::path(envmaps_) / "lights.json").string();
  if (!files_.is_file(table)) { return; }
  table_ = std::make_unique<json>(parse_file(files_, table));
  if (!table_->is_object()) { throw DataError(fmt::format("{} is no table (names to env_map, rotation_euler, strength), correct it", table)); }
}

LightSources::~LightSources() = default;

std::optional<std::string> LightSources::map_named(std::string const& name) const {
  for (char const* ending : {".exr", ".hdr"}) {
    std::string const path = (fs::path(envmaps_) / (name + ending)).string();
    if (files_.is_file(path)) { return path; }
  }
  return std::nullopt;
}

LightSource LightSources::from_entry(json const& entry, std::string const& where) const {
  LightSource out;
  std::string name;
  try {
    name = entry.at("env_map").get<std::string>();
    if (entry.contains("rotation_euler")) { out.rotation_euler = entry["rotation_euler"].get<std::array<double, 3>>(); }
    out.strength = entry.value("strength", 1.0);
  } catch (json::exception const& error) {
    throw DataError(fmt::format("{} is no light (env_map, rotation_euler and strength are needed; {})", where, error.what()));
  }
  bool finite = std::isfinite(out.strength) && out.strength > 0;
  for (double const angle : out.rotation_euler) { finite = finite && std::isfinite(angle); }
  if (!finite) { throw DataError(fmt::format("{} has strength {} and rotation_euler {} (finite numbers, a positive strength are needed)", where, out.strength, out.rotation_euler)); }
  // The file it names, here or where it was; else the same name in the folder of maps, whichever of the two formats.
  fs::path const named = remapped(name, remaps_);
  for (fs::path const& path : {fs::path(envmaps_) / (climbs(named.string()) ? named.filename() : named), fs::path(envmaps_) / named.filename()}) {
    if (files_.is_file(path.string())) {
      out.file = path.string();
      return out;
    }
  }
  auto const same = map_named(named.stem().string());
  if (!same) { throw DataError(fmt::format("{} names light map {}, which is not in {} (as .exr or .hdr), put it there", where, name, envmaps_)); }
  out.file = *same;
  return out;
}

LightSource LightSources::find(std::string const& scene, std::string const& object, std::string const& light) const {
  if (!renders_.empty()) {
    fs::path const folder = fs::path(renders_) / object;
    std::vector<std::string> splits{""};
    if (files_.is_folder(folder.string())) {
      auto const found = files_.entries(folder.string());
      splits.insert(splits.end(), found.begin(), found.end());
    }
    for (std::string const& split : splits) {
      std::string const path = (folder / split / light / "env.json").string();
      if (files_.is_file(path)) { return from_entry(parse_file(files_, path), path); }
    }
    throw DataError(fmt::format("no env.json of it is in {}/[split]/{} (the renders say which map lights it), add it", folder.string(), light));
  }
  for (std::string const& name : {scene, light}) {
    if (table_ && table_->contains(name)) { return from_entry((*table_)[name], fmt::format("entry {} of {}/lights.json", name, envmaps_)); }
    if (auto const file = map_named(name)) { return {*file, {}, 1}; }
  }
  throw DataError(fmt::format("no light map of it is in {} ({}.exr, {}.exr, .hdr or an entry of lights.json), add it", envmaps_, scene, light));
}

}  // namespace duoflow::data
