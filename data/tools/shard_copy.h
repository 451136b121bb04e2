#pragma once
// From a folder's content to the files of a new folder. Private to data/; rewrite.h has the rules.

#include <map>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "data/tools/data_folder.h"
#include "data/tools/rewrite.h"
#include "data/shards/shard_writer.h"

namespace duoflow::data {

class NewFolder;

// The distinct light maps of one shard to be, in the order of first use.
class LightMaps {
 public:
  LightMaps(std::int64_t height, std::int64_t width) : height_(height), width_(width) {}
  std::int64_t add(DataFolder const& folder, std::int64_t shard, std::int64_t env_row);  // its row in the new shard
  std::int64_t count() const { return std::ssize(sources_); }
  void write(ShardWriter& writer) const;  // dataset env
 private:
  using Source = std::tuple<DataFolder const*, std::int64_t, std::int64_t>;
  std::vector<std::uint16_t> read(Source const& source) const;
  std::int64_t height_, width_;
  std::vector<Source> sources_;
  std::map<Source, std::int64_t> known_;
  std::map<std::string, std::int64_t> by_hash_;
};

struct UnitSize {
  std::uint64_t own = 0, light_map = 0;  // bytes; the map's only if no other scene or row of the shard shares it
};
UnitSize size_of_scene(Unit const& unit);
UnitSize size_of_row(Unit const& unit, DType latent_dtype);

// One shard, under `path` when it is complete.
void write_scenes(std::string const& path, std::span<Unit const> units, Attributes const& attributes);
// `pairs` join units by their place in `units`. Mean and deviation of the latents as stored are set here.
void write_rows(std::string const& path, std::span<Unit const> units, std::vector<PairEntry> const& pairs,
                DType latent_dtype, Attributes attributes);

// The datasets of a pair shard with the sizes of `form`.
std::vector<DatasetSpec> pair_datasets(PairSet const& form, DType latent_dtype, std::int64_t rows, std::int64_t pairs,
                                       std::int64_t maps);

// All shards and the manifest, into `subfolder` of a new folder ("": itself). DataError when `content` is empty.
RewriteReport write_content(Content const& content, NewFolder const& folder, std::string const& subfolder,
                            RewriteOptions const& options);

}  // namespace duoflow::data
