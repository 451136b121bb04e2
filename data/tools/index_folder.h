#pragma once
// A manifest for shards that another program wrote (launch/duoflow_h5.py, a user's own h5py script).

#include <string>
#include <vector>

#include "data/shards/shard_schema.h"

namespace duoflow::data {

// The .h5 files of a folder, sorted by name; DataError when there is none.
std::vector<std::string> shard_files(std::string const& directory);

struct IndexedFolder {
  ShardKind kind = ShardKind::scene;
  std::vector<std::string> files;
};
// Writes the manifest after checking that the folder's shards make a data set (names, types, shapes, tables that point
// inside). Numbers are not looked at: `verify` does that. DataError when there is a manifest: it may be what tells of
// damage.
IndexedFolder index_folder(std::string const& directory);

}  // namespace duoflow::data
