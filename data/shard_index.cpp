#include "data/shard_index.h"

#include <fmt/format.h>

#include <filesystem>

#include "data/error.h"
#include "data/manifest.h"

namespace duoflow::data {
namespace {

void require_inside(ShardInfo const& shard, std::string const& path) {
  for (auto const& [name, dataset] : shard.datasets) {
    auto const bytes = static_cast<std::uint64_t>(dataset.spec.rows()) * dataset.spec.row_bytes();
    if (dataset.raw && (dataset.offset > shard.bytes || bytes > shard.bytes - dataset.offset))
      throw DataError(fmt::format("{}: dataset {} would end at byte {} (the file has {}), write the manifest again", path, name,
                                  dataset.offset + bytes, shard.bytes));
  }
}

}  // namespace

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
    require_inside(shard, path);
  }
}

}  // namespace duoflow::data
