#pragma once
// Small datasets of a shard read whole, and checks of what a shard holds against the schema. Private to data/.

#include <memory>
#include <string>
#include <vector>

#include "data/shards/raw_reader.h"
#include "data/shards/shard_index.h"

namespace duoflow::data {

inline constexpr std::int64_t kAny = -1;  // a size the schema leaves open
// Shards whose tables are read at a time: small reads wait for the disk or the network, not for a core.
inline constexpr int kTableThreads = 16;

class Tables {  // thread-safe
 public:
  explicit Tables(ShardIndex const& index);  // `index` must outlive it
  std::string path(std::int64_t shard) const;
  bool has(std::int64_t shard, std::string const& dataset) const;
  // Throws DataError unless the dataset exists with one of the types and the shape (kAny matches everything).
  DatasetSpec const& require(std::int64_t shard, std::string const& dataset, std::vector<DType> const& dtypes,
                             std::vector<std::int64_t> const& shape) const;
  std::vector<std::int64_t> integers(std::int64_t shard, std::string const& dataset, std::vector<std::int64_t> const& shape) const;
  std::vector<float> floats(std::int64_t shard, std::string const& dataset, std::vector<std::int64_t> const& shape) const;
  std::vector<std::string> names(std::int64_t shard, std::string const& dataset, std::int64_t rows) const;

 private:
  ShardIndex const& index_;
  RawReader reader_;
};

// What must be the same in all shards of a folder, as named numbers; throws DataError naming both files where it is not.
struct Common {
  std::string path;
  std::vector<std::pair<char const*, std::int64_t>> values;
};
void require_same(Common const& first, Common const& other);

}  // namespace duoflow::data
