#pragma once
// Path-traced scenes: every object under every light from the same cameras. Deterministic bytes for a seed and options, whatever the
// number of threads. An interrupted call leaves whole shards, a temporary file at most, and no manifest: the folder is no data set
// until the call that is repeated has ended.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/synth/lights.h"
#include "data/synth/objects.h"

namespace duoflow::data {

struct SynthProgress {
  double done;  // share of the pictures, 0 to 1
  double seconds;
  std::string object;
};

struct SynthOptions {
  std::string out;
  std::int64_t objects = 2, lights = 32, views = 16, size = 64;  // objects: 0 with meshes is one scene per file
  std::int64_t env_height = 32;
  std::int64_t samples_per_pixel = 64;
  std::int64_t bounces = 4;  // path_tracer.h
  // path_tracer.h; kAutomatic: 16 where lights are sharp (sun-sky and studio, files that are not softened), else none
  static constexpr std::int64_t kAutomatic = -1;
  std::int64_t light_directions = kAutomatic;
  std::uint64_t seed = 0;
  ObjectOptions object;
  std::vector<LightKind> light_kinds = kSoftLights;
  std::string envmaps;  // folder of EXR files instead of procedural lights
  float soften_degrees = kSoftenDegrees;  // of their bright sources (lights.h); 0 to 90
  int threads = 0;      // 0: all cores
  std::function<void(std::string const&)> say;              // a line per object
  std::function<void(SynthProgress const&)> progress;       // a few times a second, from any one thread at a time
};
struct SynthReport {
  std::int64_t scenes = 0, frames = 0;
  std::vector<std::string> shards;
};
void check_options(SynthOptions const& options);             // DataError that names an option out of its range
SynthReport generate_scenes(SynthOptions const& options);  // shards and manifest

}  // namespace duoflow::data
