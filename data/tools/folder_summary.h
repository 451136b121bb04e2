#pragma once
// What a data folder holds, for people and programs: from the manifest and the small tables; pictures and latents stay
// unread.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/shards/shard_index.h"

namespace duoflow::data {

struct DatasetSummary {  // one dataset over all shards
  DType dtype = DType::u8;
  std::vector<std::int64_t> row_shape;
  std::int64_t rows = 0;
  std::uint64_t bytes = 0;
  std::int64_t slow_shards = 0;  // in which it has to be read through HDF5
};

struct Extent {
  double least = 0, most = 0;
};

struct FolderSummary {
  std::string directory;
  ShardKind kind = ShardKind::scene;
  std::int64_t shards = 0, units = 0, frames = 0, pairs = 0;  // units: scenes or rows; frames of scenes
  std::uint64_t bytes = 0;                                    // of all shards
  std::map<std::string, DatasetSummary> datasets;
  std::map<std::string, std::int64_t> producers, notes;    // how many shards say so; empty ones left out
  std::map<std::string, std::vector<std::string>> lights;  // of each object, sorted, each once
  std::int64_t distinct_lights = 0, view_sets = 0;
  std::int64_t height = 0, width = 0, env_height = 0, env_width = 0, targets = 0, tokens = 0, dim = 0;
  bool has_alpha = false, env_per_frame = false;
  std::vector<float> latent_mean, latent_std;  // per channel, by the shards' own account
  std::optional<Extent>
      camera_distance;  // from the origin: of the world (scenes), of the normalised frame (targets of rows)
  std::optional<Extent> focal, field_of_view;  // fx in pixels; horizontal, in degrees
};
// DataError as load_scenes and load_pairs.
FolderSummary summarise(ShardIndex const& index);

// Of every number of every row; reads all latents.
struct LatentSummary {
  std::vector<float> mean, deviation;  // per channel
  Extent values, rms;                  // rms: of a row
  double median_rms = 0;
  struct Outlier {
    std::string object, light, file;
    std::int64_t row = 0;  // in that file
    double rms = 0;
  };
  std::vector<Outlier>
      outliers;  // farthest first: rms more than `kOutlierDeviations` robust standard deviations from the median
};
// 1.4826 times the median distance from the median is the standard deviation of normal numbers; one of 1.7 million of
// those is beyond 5.
inline constexpr double kOutlierDeviations = 5;
// DataError: scene shards; a latent that is not finite, by file and row.
LatentSummary summarise_latents(ShardIndex const& index);

}  // namespace duoflow::data
