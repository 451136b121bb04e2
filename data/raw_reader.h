#pragma once
// RawReader: rows of a data folder straight into the caller's memory by pread; H5Dread on one thread where a layout
// does not allow it (said once). Thread-safe.

#include <memory>
#include <string>

#include "data/shard_index.h"

namespace duoflow::data {

enum class Verify { first_touch, always, never };

class RawReader {
 public:
  RawReader(std::shared_ptr<ShardIndex const> index, Verify verify = Verify::first_touch);
  ~RawReader();
  // Copies row `row` of `dataset` of shard `shard` (spec.row_bytes() bytes) to `destination`.
  // Throws DataError naming shard, dataset, row and offset: short file, I/O error, hash mismatch.
  void read(std::int64_t shard, std::string const& dataset, std::int64_t row, void* destination) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace duoflow::data
