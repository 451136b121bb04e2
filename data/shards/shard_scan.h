#pragma once
// One pass over a shard's bytes that finds all its hashes. Private to data/.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/file.h"
#include "data/shards/shard_index.h"

namespace duoflow::data {

// A raw dataset's rows, or (without a dataset) bytes between them: HDF5's metadata, padding, chunks.
struct Region {
  std::uint64_t begin = 0, bytes = 0;
  DatasetIndex const* dataset = nullptr;
};
// The whole file in order, `file_bytes` long. The raw datasets lie inside the file and apart from each other (require_sound).
// The datasets must outlive it.
std::vector<Region> regions_of(std::map<std::string, DatasetIndex> const& datasets, std::uint64_t file_bytes);
// Throws DataError naming the dataset that reaches over the file's end or into another.
void require_sound(ShardInfo const& shard, std::string const& path);

struct ScannedRows {
  std::vector<std::uint64_t> xxh3;     // fewer than the dataset has rows where the file ends early
  std::int64_t first_not_finite = -1;  // the first row with an infinity or no number in it
};
struct ShardScan {
  std::uint64_t bytes = 0;
  std::string xxh3, rest_xxh3;              // as in ShardInfo
  std::map<std::string, ScannedRows> rows;  // of the raw datasets
};
// Reads each byte once, in pieces; `on_bytes` (may be empty) hears of each piece. A failing disk is a std::system_error.
ShardScan scan_shard(FileDescriptor const& file, std::map<std::string, DatasetIndex> const& datasets,
                     std::function<void(std::uint64_t)> const& on_bytes);

// The same of a dataset that HDF5 has to read.
class LibraryRows;
ScannedRows scan_library_rows(DatasetSpec const& spec, LibraryRows& library);

// Whether rest_xxh3 is known and few enough bytes (1 MiB) are behind it to look at whenever a shard is opened.
bool rest_is_cheap(ShardInfo const& shard);
std::string hash_rest(FileDescriptor const& file, ShardInfo const& shard);

}  // namespace duoflow::data
