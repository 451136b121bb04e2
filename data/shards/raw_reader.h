#pragma once
// RawReader: rows of a data folder straight into the caller's memory by pread; H5Dread on one thread where a layout
// does not allow it (said once per folder on stderr, with the reason). Thread-safe. A shard is opened when it is first
// read and stays open, unless the folder has more shards than files may be open. 16-bit floats arrive as stored.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "data/shards/shard_index.h"

namespace duoflow::data {

// When a row is compared with the manifest's hash. first_touch: once per reader and row. Both that check also compare a
// shard's metadata when it is opened: one written anew after the manifest is found there.
enum class Verify { first_touch, always, never };

class RawReader {
 public:
  RawReader(std::shared_ptr<ShardIndex const> index, Verify verify = Verify::first_touch);
  ~RawReader();
  // Copies row `row` of `dataset` of shard `shard` (spec.row_bytes() bytes) to `destination`.
  // Throws DataError naming shard, dataset, row and offset: short file, I/O error, hash mismatch.
  void read(std::int64_t shard, std::string const& dataset, std::int64_t row, void* destination) const;
  // The same for rows [first_row, first_row + rows) at once.
  void read_rows(std::int64_t shard, std::string const& dataset, std::int64_t first_row, std::int64_t rows, void* destination) const;
  // Bytes [begin, begin + bytes) of one row; reads and checks the whole row where it has to be compared with its hash.
  void read_part(std::int64_t shard, std::string const& dataset, std::int64_t row, std::size_t begin, std::size_t bytes,
                 void* destination) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace duoflow::data
