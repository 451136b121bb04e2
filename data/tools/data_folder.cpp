#include "data/tools/data_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>
#include <string_view>
#include <tuple>

#include "data/error.h"
#include "data/shards/manifest.h"

namespace duoflow::data {
namespace {

constexpr std::array<std::string_view, 24> kSchema{"images",
                                                   "alpha",
                                                   "c2w",
                                                   "fxfycxcy",
                                                   "env",
                                                   "env_ldr",
                                                   "env_hdr",
                                                   "scene/object",
                                                   "scene/light",
                                                   "scene/first_frame",
                                                   "scene/frame_count",
                                                   "scene/env_row",
                                                   "latents",
                                                   "target_images",
                                                   "target_alpha",
                                                   "target_c2w",
                                                   "target_fxfycxcy",
                                                   "scene/env_rotation",
                                                   "env_row",
                                                   "world_to_norm",
                                                   "row/object",
                                                   "row/light",
                                                   "row/view_set",
                                                   "pairs"};

using Name = std::tuple<std::string const&, std::int64_t, std::string const&>;

Name name_of(Unit const& unit, ShardKind kind) {
  static constexpr std::int64_t no_views = 0;
  if (kind == ShardKind::scene) return {unit.scene().object, no_views, unit.scene().light};
  return {unit.row().object, unit.row().view_set, unit.row().light};
}

std::string file_of(Unit const& unit, ShardKind kind) {
  auto const shard = kind == ShardKind::scene ? unit.scene().shard : unit.row().shard;
  auto const& index = *unit.folder->index;
  return index.directory() + "/" + index.shards()[static_cast<std::size_t>(shard)].file;
}

std::vector<Unit> wanted_units(std::vector<DataFolder> const& folders, ShardKind kind, Keep const& keep) {
  std::vector<Unit> units;
  for (auto const& folder : folders) {
    auto const count = kind == ShardKind::scene ? std::ssize(folder.scenes.scenes) : std::ssize(folder.pairs.rows);
    for (std::int64_t number = 0; number < count; ++number) {
      Unit const unit{&folder, number};
      auto const& [object, views, light] = name_of(unit, kind);
      if (keep(object, light)) units.push_back(unit);
    }
  }
  std::stable_sort(units.begin(), units.end(),
                   [&](Unit const& a, Unit const& b) { return name_of(a, kind) < name_of(b, kind); });
  return units;
}

void add_pairs(std::vector<DataFolder> const& folders, Content& content) {
  std::map<DataFolder const*, std::vector<std::int64_t>> place;  // of each folder's rows among the units; -1: not there
  for (auto const& folder : folders) place[&folder].assign(folder.pairs.rows.size(), -1);
  for (std::size_t i = 0; i < content.units.size(); ++i)
    place[content.units[i].folder][static_cast<std::size_t>(content.units[i].number)] = static_cast<std::int64_t>(i);
  for (auto const& folder : folders) {
    auto const& of = place[&folder];
    for (auto const& pair : folder.pairs.pairs) {
      PairEntry const moved{of[static_cast<std::size_t>(pair.x0)], of[static_cast<std::size_t>(pair.x1)]};
      if (moved.x0 >= 0 && moved.x1 >= 0)
        content.pairs.push_back(moved);
      else if (moved.x0 >= 0 || moved.x1 >= 0)
        ++content.pairs_left_out;
    }
  }
  std::stable_sort(content.pairs.begin(), content.pairs.end(),
                   [](PairEntry const& a, PairEntry const& b) { return std::tie(a.x0, a.x1) < std::tie(b.x0, b.x1); });
}

}  // namespace

DataFolder open_folder(std::string const& directory) {
  bool const listed = std::filesystem::exists(manifest_path(directory));
  DataFolder folder;
  folder.index = std::make_shared<ShardIndex const>(listed ? ShardIndex(directory) : ShardIndex::of_files(directory));
  if (folder.index->kind() == ShardKind::scene)
    folder.scenes = load_scenes(*folder.index);
  else
    folder.pairs = load_pairs(*folder.index);
  folder.reader =
      std::make_shared<RawReader const>(folder.index, Verify::always);  // last: the tables' own reader is closed by now
  return folder;
}

std::vector<std::string> foreign_datasets(DataFolder const& folder) {
  std::set<std::string> names;
  for (auto const& shard : folder.index->shards())
    for (auto const& [name, dataset] : shard.datasets)
      if (std::find(kSchema.begin(), kSchema.end(), name) == kSchema.end()) names.insert(name);
  return {names.begin(), names.end()};
}

Content gather(std::vector<DataFolder> const& folders, Keep const& keep) {
  Content content;
  if (folders.empty()) return content;
  content.kind = folders.front().index->kind();
  content.units = wanted_units(folders, content.kind, keep);
  if (content.kind == ShardKind::pair) add_pairs(folders, content);
  return content;
}

void require_distinct(Content const& content) {
  auto const same = [&](Unit const& a, Unit const& b) { return name_of(a, content.kind) == name_of(b, content.kind); };
  auto const found = std::adjacent_find(content.units.begin(), content.units.end(), same);
  if (found == content.units.end()) return;
  auto const& [object, views, light] = name_of(*found, content.kind);
  auto const second = file_of(*(found + 1), content.kind);
  throw DataError(
      fmt::format("object {} under light {}{} is in {} and in {} (it would count twice), leave one of them out", object,
                  light, content.kind == ShardKind::pair ? fmt::format(" with view set {}", views) : "",
                  file_of(*found, content.kind), second));
}

}  // namespace duoflow::data
