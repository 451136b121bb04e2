#pragma once
// What HDF5 says about one shard: names, types, shapes, byte offsets, attributes. And its rows read through the library,
// for layouts that a plain read of the file cannot serve. Private to data/.

#include <map>
#include <string>

#include "data/shards/hdf5.h"
#include "data/shards/shard_index.h"

namespace duoflow::data {

struct ShardLayout {
  ShardKind kind = ShardKind::scene;
  Attributes attributes;
  std::map<std::string, DatasetIndex> datasets;  // without hashes
};
// Throws DataError naming shard and dataset: not HDF5, newer schema, a type that is none of the schema's.
// `raw` is true only where the file's bytes at `offset` are proven to be the rows (first and last compared with the library's).
ShardLayout read_layout(std::string const& path);

// Rows through H5Dread, one thread at a time (it takes the library's lock for each call).
class LibraryRows {
 public:
  explicit LibraryRows(std::string const& path);
  // Throws DataError unless the file's dataset has the type and the shape of `spec`.
  void read(DatasetSpec const& spec, std::int64_t first_row, std::int64_t rows, void* destination);
  // Of another type, whose numbers have this many bytes in the file.
  void read_numbers(std::string const& dataset, std::vector<std::int64_t> const& shape, std::size_t bytes, std::int64_t first_row,
                    std::int64_t rows, void* destination);
  std::string obstacle(std::string const& dataset);  // in words, why its rows cannot be read directly

 private:
  h5::Handle const& open(std::string const& dataset);

  std::string path_;
  std::uint64_t file_bytes_;
  h5::Handle file_;
  std::map<std::string, h5::Handle> datasets_;
};

}  // namespace duoflow::data
