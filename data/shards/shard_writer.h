#pragma once
// ShardWriter: makes one HDF5 shard under a temporary name; close() syncs it and gives it its final name.
// A writer destroyed before close() removes its temporary file: no partial output under a final name.

#include <memory>
#include <string>
#include <vector>

#include <functional>
#include <string>

#include "data/shards/shard_schema.h"

namespace duoflow::data {

class ShardWriter {
 public:
  ShardWriter(std::string const& path, ShardKind kind, std::vector<DatasetSpec> const& datasets, Attributes const& attributes);
  ~ShardWriter();
  ShardWriter(ShardWriter const&) = delete;

  // Writes rows [first_row, first_row+rows) from host memory laid out as the dataset's type.
  void write(std::string const& dataset, std::int64_t first_row, std::int64_t rows, void const* bytes);
  void write_names(std::string const& dataset, std::vector<std::string> const& names);  // whole dataset
  void set_attributes(Attributes const& attributes);  // before close(): statistics known only at the end
  // Every row of every dataset must have been written. After this the file is complete under its final name.
  void close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Before a command writes into `directory`, or replaces what is there: every shard in it (scenes-*.h5, pairs-*.h5) must be of this
// kind and made by the command, as `is_own` says of its attributes, else DataError: it would be lost. An absent folder is none.
void require_own_shards(std::string const& directory, ShardKind kind, std::function<bool(Attributes const&)> const& is_own);

// Makes DIR, or takes a finished data set's manifest away from it: what is being rewritten must not pass for whole.
void begin_folder(std::string const& directory);

// Writes DIR/manifest.json from the finished shards of one folder (kind, counts, byte offset and xxh3 of every row and of
// every whole file, own hash, schema version). Written last, atomically. Throws DataError if a shard is missing.
// `files` are names relative to `directory`, in index order. Shards of this kind (scenes-*.h5, pairs-*.h5) that are not listed are
// an earlier data set's and are removed.
void write_manifest(std::string const& directory, ShardKind kind, std::vector<std::string> const& files);

}  // namespace duoflow::data
