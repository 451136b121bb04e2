#pragma once
// manifest.json: what a data folder holds, with a hash of every row, of every file and of itself. Private to data/;
// write_manifest (shard_writer.h) makes it. Form, as one line of JSON with sorted keys:
//   {kind, schema_version, shards: [{attributes {producer, note, latent_mean, latent_std}, bytes,
//     datasets: {name: {dtype, offset, raw, row_xxh3[], shape}}, file, rest_xxh3, xxh3}], xxh3}
// where the last xxh3 is of the text without that key, and rest_xxh3 of a shard's bytes outside all raw rows.

#include <cstdint>
#include <string>
#include <vector>

#include "data/shards/shard_index.h"

namespace duoflow::data {

struct Manifest {
  ShardKind kind = ShardKind::scene;
  std::vector<ShardInfo> shards;
  std::string xxh3;
};

std::string manifest_path(std::string const& directory);
// Throws DataError: missing, cut short, altered, newer schema, or saying what cannot be (names that are no file of the folder
// or stand twice, negative or overflowing sizes, rows outside their file or inside another dataset's).
Manifest read_manifest(std::string const& directory);

// Everything about one finished shard, hashes included, read from the file.
ShardInfo survey_shard(std::string const& directory, ShardKind kind, std::string const& file);

}  // namespace duoflow::data
