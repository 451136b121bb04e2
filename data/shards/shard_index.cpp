#include "data/shards/shard_index.h"

#include <fmt/format.h>

#include <filesystem>

#include "data/error.h"
#include "data/shards/manifest.h"

namespace duoflow::data {

ShardIndex::ShardIndex(std::string const& directory) : directory_(directory) {
  auto manifest = read_manifest(directory);
  fingerprint_ = std::move(manifest.xxh3);
  kind_ = manifest.kind;
  shards_ = std::move(manifest.shards);
  for (auto const& shard : shards_) {
    auto const path = directory + "/" + shard.file;
    std::error_code error;
    auto const bytes = std::filesystem::file_size(path, error);
    if (error)
      throw DataError(fmt::format("{} is missing ({}; the manifest names it), restore it or make the folder again", path, error.message()));
    if (bytes != shard.bytes)
      throw DataError(fmt::format("{} has {} bytes (the manifest says {}: cut short or replaced), restore it or make the folder again",
                                  path, bytes, shard.bytes));
  }
}

}  // namespace duoflow::data
