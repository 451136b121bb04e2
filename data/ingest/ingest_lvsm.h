#pragma once
// LVSM scene folders (full_list.txt -> metadata/<scene>.json -> images, envmaps) into scene shards.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace duoflow::data {

struct IngestOptions {
  // Each a full_list.txt; a folder with full_list.txt or metadata/ in it or in its subfolders; or a plain tar of such a folder.
  std::vector<std::string> scenes;
  std::vector<std::pair<std::string, std::string>> remaps;     // path prefix OLD -> NEW, first match
  std::string envmaps;                // folder of EXR and HDR light maps; "": the per-frame pairs are taken
  std::string renders;                // folder of the source renders' env.json; needs envmaps
  std::string out;
  std::int64_t size = 0;              // square output in pixels; 0: height of the first picture
  std::int64_t env_height = 0;        // 0: as stored, of source maps at most 256
  std::int64_t scenes_per_shard = 64;
  bool assume_srgb = false;           // pictures that declare other colours are taken as sRGB instead of being refused
  bool dry_run = false;
  bool skip_bad = false;              // leave bad scenes out, listing them in OUT/skipped.txt and in the report
  std::string camera_sheet;           // PNG to draw for checking the camera convention by eye (camera_sheet.h); "": none
  int threads = 1;
  int worker = 0, workers = 1;        // this process takes shards worker, worker+workers, ...
  // All workers' texts in the order of the workers, given one's own: every worker calls it equally often, and none returns before
  // all have called. Without it each worker checks all files itself.
  std::function<std::vector<std::string>(std::string const&)> exchange;
  std::function<void(std::string const&)> say;  // progress lines
  std::function<void()> before_writing;         // by worker 0, when all checks are passed: to lock OUT, or to refuse
};

struct IngestProblem {
  std::string scene;        // or a light map's file
  std::int64_t frame = -1;  // -1: the scene itself
  std::string problem;
};
std::string to_line(IngestProblem const& problem);

struct IngestReport {
  // Of the scenes without a problem, over all workers. pairs: ordered, same object, other base map.
  std::int64_t objects = 0, scenes = 0, frames = 0, pairs = 0;
  std::map<std::string, std::int64_t> lights;  // object -> number of its scenes
  std::vector<std::string> other_lights;       // scenes lit by something else than an environment map: left out
  std::vector<std::string> shards;       // file names written by this worker, or kept
  std::int64_t kept = 0;                 // of these: finished by an earlier, interrupted call
  std::vector<std::string> all_shards;   // in index order, over all workers
  std::vector<IngestProblem> problems;   // every missing or corrupt file, every bad camera
  // What is odd but was taken: equal cameras, repaired numbers of light maps, poses that fit the pictures' outlines better when read
  // otherwise (worker 0 looks at one object for that, at four for a sheet).
  std::vector<IngestProblem> warnings;
};
// Scene name -> object and light ("bunny_env_0_1" -> "bunny", "env_0_1"). Base map of a light: "env_0_1" -> "env_0".
std::pair<std::string, std::string> split_scene_name(std::string const& scene);
std::string base_light(std::string const& light);

// Lists, metadata, cameras and the bytes of every file are checked before anything is written; each worker checks its share of the
// files and learns the others' findings, so all agree on what goes into which shard and one bad file stops all. Shards hold the
// good scenes in order of (object, light); their bytes do not depend on the number of workers or threads.
//
// Pictures: PNG, JPEG, EXR or HDR (linear ones clipped to [0,1] and encoded by 1/2.2); shorter side to `size` (Lanczos), centre
// square, over white, alpha kept when all pictures have it. Only sRGB, or pictures that declare nothing, are taken.
// Light, one of two kinds for the whole data set:
// - without `envmaps`, the per-frame pairs of <root>/envmaps/<scene>/, as stored or resized in linear radiance; all of one size;
// - with it, /env = strength * map, and /scene/env_rotation R with radiance towards world direction d = env(R d). The map of a
//   scene is found by renders/<object>[/<split>]/<light>/env.json {env_map, rotation_euler, strength}, by an entry of the same
//   form in envmaps/lights.json under the scene's or the light's name, or else as envmaps/<scene or light>.{exr,hdr}.
//   R = Rz(c) Ry(b) Rx(a) of rotation_euler [a, b, c] in radians, as Blender's Mapping node turns a direction (the LVSM family's
//   preprocess ignores a and b). Negative and NaN numbers become 0, those beyond 65504 become 65504, and are counted as warnings.
//
// Throws DataError after listing all problems when there are any and neither dry_run nor skip_bad is set (nothing is written
// then), and when the disk has not the room. A call that was interrupted leaves its finished shards with receipts: called again,
// it keeps those that were made from the same bytes with the same options, and the result is the same bytes.
// The caller keeps other writers out (FolderLock, in before_writing), writes the manifest once all workers are done, and then calls end_ingest.
// Worker 0 writes OUT/skipped.txt.
IngestReport ingest_lvsm(IngestOptions const& options);
// Removes what only an interrupted call needs.
void end_ingest(std::string const& out);

}  // namespace duoflow::data
