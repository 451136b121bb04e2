#include "data/tools/index_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "data/error.h"
#include "data/shards/manifest.h"
#include "data/shards/shard_index.h"
#include "data/shards/shard_layout.h"
#include "data/shards/shard_writer.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;

ShardKind kind_of_files(std::string const& directory, std::vector<std::string> const& files) {
  return read_layout(directory + "/" + files.front()).kind;  // survey_shard refuses others beside it
}

void require_readable(std::string const& directory) {
  ShardIndex const index(directory);
  if (index.kind() == ShardKind::scene)
    load_scenes(index);
  else
    load_pairs(index);
}

}  // namespace

std::vector<std::string> shard_files(std::string const& directory) {
  if (!fs::is_directory(directory))
    throw DataError(fmt::format("{} is no folder (a folder of shards is needed), correct the name", directory));
  std::vector<std::string> files;
  for (auto const& entry : fs::directory_iterator(directory))
    if (entry.is_regular_file() && entry.path().extension() == ".h5") files.push_back(entry.path().filename().string());
  if (files.empty())
    throw DataError(fmt::format("{} holds no shard (no file in it ends in .h5), name a data folder", directory));
  std::sort(files.begin(), files.end());
  return files;
}

ShardIndex ShardIndex::of_files(std::string const& directory) {
  auto const files = shard_files(directory);
  ShardIndex index;
  index.directory_ = directory;
  index.kind_ = kind_of_files(directory, files);
  for (auto const& file : files) index.shards_.push_back(survey_shard(directory, index.kind_, file));
  return index;
}

IndexedFolder index_folder(std::string const& directory) {
  if (fs::exists(manifest_path(directory)))
    throw DataError(fmt::format(
        "{} has a manifest.json (one made now would call any damage since then right), run `duoflow verify` on it, "
        "or remove that file first",
        directory));
  IndexedFolder result;
  result.files = shard_files(directory);
  result.kind = kind_of_files(directory, result.files);
  write_manifest(directory, result.kind, result.files);
  try {
    require_readable(directory);
  } catch (...) {
    fs::remove(manifest_path(directory));
    throw;
  }
  return result;
}

}  // namespace duoflow::data
