#pragma once
// Data folders made from data folders: repack, merge, and (split.h) split. Copies only: of the numbers none but the
// latents' type and statistics can change.
//
// Order: scenes by object, light; rows by object, view set, light; pairs by x0, x1. File k is scenes-0000k.h5 or
// pairs-0000k.h5. Light maps that are equal are stored once per file. So the bytes written are a function of the scenes
// or rows and of the options, not of the files they came in: repacking twice changes nothing, and merging the parts of
// a split gives the repacked whole. (Rows of one name, which only repack accepts, keep the order of the files.) The
// output folder has its name only when it is whole; one that is there already, and not empty, is refused.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/shards/shard_schema.h"

namespace duoflow::data {

struct RewriteOptions {
  std::string out;
  // Most scenes or rows in a file; 0: as many as fit. Rows of one object and view set stay together (pairs join rows of
  // one file), so a file can hold more than either limit says.
  std::int64_t per_shard = 0;
  std::uint64_t shard_bytes = std::uint64_t{1} << 30;
  std::optional<DType> latent_dtype = {};  // f32, f16, bf16: rounded to nearest, ties to even; nullopt: as stored
  std::function<void(std::string const&)> say = {};
};

struct RewriteReport {
  ShardKind kind = ShardKind::scene;
  std::int64_t shards = 0, units = 0, pairs = 0;  // units: scenes or rows
  std::int64_t pairs_left_out = 0;                // between a row that is taken and one that is not
  std::uint64_t bytes = 0;                        // of the shards
};

// Any folder that training could read, and folders without manifest. Datasets that are none of the schema's stay
// behind, which is said. DataError: as reading; a latent that is not finite or does not fit the type, by file, row and
// number; a disk too small or full.
RewriteReport repack_folder(std::string const& directory, RewriteOptions const& options);

// DataError with both folders and values where kinds, sizes, types (unless latent_dtype is given) or producers differ,
// or where one object has one light (and view set) in two places.
RewriteReport merge_folders(std::vector<std::string> const& directories, RewriteOptions const& options);

}  // namespace duoflow::data
