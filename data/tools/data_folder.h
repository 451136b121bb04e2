#pragma once
// Data folders opened to be copied from, and what of them goes into a new one, in its order. Private to data/.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/shards/raw_reader.h"
#include "data/shards/shard_index.h"

namespace duoflow::data {

struct DataFolder {
  std::shared_ptr<ShardIndex const> index;
  std::shared_ptr<RawReader const> reader;  // compares every row with its hash
  SceneSet scenes;                          // of one kind
  PairSet pairs;                            // or the other
};
// With its manifest, or without one, by the files in it (read twice then). DataError as ShardIndex, load_scenes and
// load_pairs.
DataFolder open_folder(std::string const& directory);
// Datasets in it that are none of the schema's: no copy takes them along.
std::vector<std::string> foreign_datasets(DataFolder const& folder);

struct Unit {  // a scene, or a row of a pair folder
  DataFolder const* folder = nullptr;
  std::int64_t number = 0;  // into scenes.scenes or pairs.rows
  SceneEntry const& scene() const { return folder->scenes.scenes[static_cast<std::size_t>(number)]; }
  RowEntry const& row() const { return folder->pairs.rows[static_cast<std::size_t>(number)]; }
};

// Sorted by object, view set (rows), light; pairs by x0, x1. So the same scenes or rows make the same content, from
// whatever folders and shards, unless two have one name: those stay in the order of the folders.
struct Content {
  ShardKind kind = ShardKind::scene;
  std::vector<Unit> units;
  std::vector<PairEntry> pairs;  // into units
  std::int64_t pairs_left_out = 0;
};
using Keep = std::function<bool(std::string const& object, std::string const& light)>;
// Every folder's scenes or rows that `keep` wants; pairs of which it wants both rows. All of one kind and form, which
// the caller has checked; the folders must outlive the result.
Content gather(std::vector<DataFolder> const& folders, Keep const& keep);
// DataError naming the first two scenes or rows that have one name.
void require_distinct(Content const& content);

}  // namespace duoflow::data
