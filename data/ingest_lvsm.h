#pragma once
// LVSM scene folders (full_list.txt -> metadata/<scene>.json -> images, envmaps) into scene shards.

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace duoflow::data {

struct IngestOptions {
  std::vector<std::string> lists;                              // full_list.txt files
  std::vector<std::pair<std::string, std::string>> remaps;     // path prefix OLD -> NEW, first match
  std::string out;
  std::int64_t size = 0;              // square output in pixels; 0: height of the first picture
  std::int64_t env_height = 0;        // 0: as stored
  std::int64_t scenes_per_shard = 64;
  bool dry_run = false;
  bool skip_bad = false;              // leave bad scenes out, listing them in OUT/skipped.txt and in the report
  int worker = 0, workers = 1;        // this process takes shards worker, worker+workers, ...
  std::function<void(std::string const&)> say;  // progress lines
};

struct IngestProblem {
  std::string scene;
  std::int64_t frame = -1;  // -1: the scene itself
  std::string problem;
};
struct IngestReport {
  std::int64_t objects = 0, scenes = 0, frames = 0, pairs = 0;  // pairs: ordered, same object, other base map
  std::vector<std::string> shards;       // file names written by this worker
  std::vector<std::string> all_shards;   // in index order, over all workers
  std::vector<IngestProblem> problems;   // every missing or corrupt file, every bad camera
};
// Scene name -> object and light ("bunny_env_0_1" -> "bunny", "env_0_1"). Base map of a light: "env_0_1" -> "env_0".
std::pair<std::string, std::string> split_scene_name(std::string const& scene);
std::string base_light(std::string const& light);

// Throws DataError after listing all problems when there are any and neither dry_run nor skip_bad is set (nothing is written then).
// The caller writes the manifest once all workers are done.
IngestReport ingest_lvsm(IngestOptions const& options);

}  // namespace duoflow::data
