#pragma once
// ShardIndex: what a data folder holds, read from its manifest.json (HDF5 is opened only to check, never per sample).
// Immutable after construction; may be shared by threads.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/shards/shard_schema.h"

namespace duoflow::data {

struct DatasetIndex {
  DatasetSpec spec;
  std::uint64_t offset = 0;             // byte offset of row 0 in the file; rows follow without gaps
  bool raw = true;                      // false: layout does not allow pread, use H5Dread
  std::vector<std::uint64_t> row_xxh3;  // per row
};

struct ShardInfo {
  std::string file;  // its name in the folder
  std::uint64_t bytes = 0;
  std::string xxh3, rest_xxh3;  // of the whole file; of its bytes outside all raw rows (empty: an older manifest)
  std::map<std::string, DatasetIndex> datasets;
  Attributes attributes;
};

class ShardIndex {
 public:
  // Nothing a manifest says is trusted: names stay inside the folder, sizes inside their files.
  // Throws DataError: no manifest, altered or senseless manifest, newer schema, a shard missing or of another size.
  explicit ShardIndex(std::string const& directory);
  // Of a folder without manifest: every .h5 file in it, in order of name, as write_manifest would describe it. Reads every byte.
  // Throws DataError: none there, files of both kinds, a file that is no shard. The fingerprint is empty.
  static ShardIndex of_files(std::string const& directory);

  std::string const& directory() const { return directory_; }
  ShardKind kind() const { return kind_; }
  std::vector<ShardInfo> const& shards() const { return shards_; }
  std::string fingerprint() const { return fingerprint_; }  // the manifest's own hash: identifies the data

 private:
  ShardIndex() = default;

  std::string directory_, fingerprint_;
  ShardKind kind_ = ShardKind::scene;
  std::vector<ShardInfo> shards_;
};

// Small datasets of all shards read into memory once, with global numbering (shard s's rows follow shard s-1's). A shard
// that was written anew behind the manifest's back is a DataError here.
struct SceneEntry {
  std::string object, light;
  std::int64_t shard = 0, first_frame = 0, frame_count = 0, env_row = -1;  // rows within the shard; env_row -1: per-frame maps
  float env_rotation[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  std::vector<float> c2w, fxfycxcy;  // frame_count x 16, frame_count x 4
};
struct SceneSet {
  std::vector<SceneEntry> scenes;
  std::int64_t height = 0, width = 0, env_height = 0, env_width = 0;
  bool has_alpha = false, env_per_frame = false;
};
SceneSet load_scenes(ShardIndex const& index);

struct RowEntry {
  std::string object, light;
  std::int64_t shard = 0, row = 0, view_set = 0, env_row = 0;
};
struct PairEntry {
  std::int64_t x0 = 0, x1 = 0;  // into PairSet::rows
};
struct PairSet {
  std::vector<RowEntry> rows;
  std::vector<PairEntry> pairs;
  std::int64_t tokens = 0, dim = 0, targets = 0, height = 0, width = 0, env_height = 0, env_width = 0;
  DType latent_dtype = DType::f32;
  bool has_alpha = false;
  std::vector<float> latent_mean, latent_std;  // combined over shards, row-count weighted
  std::string producer;                        // DataError if shards disagree
};
PairSet load_pairs(ShardIndex const& index);

struct VerifyOptions {
  int threads = 0;  // shards at a time; 0: one per core
  // Called by any of the threads, one at a time, as bytes of shards are read.
  std::function<void(std::uint64_t bytes_done, std::uint64_t bytes_in_all)> progress = {};
};
// Every hash and every layout, whole files too, each byte read once; returns problems found (empty: all is well).
std::vector<std::string> verify_folder(std::string const& directory, VerifyOptions const& options = {});

}  // namespace duoflow::data
