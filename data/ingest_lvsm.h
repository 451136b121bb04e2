#pragma once
// LVSM scene folders (full_list.txt -> metadata/<scene>.json -> images, envmaps) into scene shards.

#include <cstdint>
#include <functional>
#include <map>
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
  // Of the scenes without a problem, over all workers. pairs: ordered, same object, other base map.
  std::int64_t objects = 0, scenes = 0, frames = 0, pairs = 0;
  std::map<std::string, std::int64_t> lights;  // object -> number of its scenes
  std::vector<std::string> other_lights;       // scenes lit by something else than an environment map: left out
  std::vector<std::string> shards;       // file names written by this worker
  std::vector<std::string> all_shards;   // in index order, over all workers
  std::vector<IngestProblem> problems;   // every missing or corrupt file, every bad camera
};
// Scene name -> object and light ("bunny_env_0_1" -> "bunny", "env_0_1"). Base map of a light: "env_0_1" -> "env_0".
std::pair<std::string, std::string> split_scene_name(std::string const& scene);
std::string base_light(std::string const& light);

// Lists, metadata, cameras and the bytes of every picture are checked before anything is written, by every worker for all
// scenes: so all agree on what goes into which shard, and one worker's bad file stops all. Shards hold the good scenes in
// order of (object, light); their bytes do not depend on the number of workers.
// Pictures: shorter side to `size` (Lanczos), centre square, over white, alpha kept when all pictures have it. Light maps:
// the per-frame pairs of <root>/envmaps/<scene>/, as stored or resized in linear radiance; all must have one size.
// Throws DataError after listing all problems when there are any and neither dry_run nor skip_bad is set (nothing is written
// then). If writing fails later, the shards of this call are removed.
// The caller writes the manifest once all workers are done. Worker 0 writes OUT/skipped.txt.
IngestReport ingest_lvsm(IngestOptions const& options);

}  // namespace duoflow::data
