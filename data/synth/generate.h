#pragma once
// Procedural scenes: every object under every light from the same cameras, path traced with Embree. Deterministic bytes for a seed,
// whatever the number of threads.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace duoflow::data {

struct SynthOptions {
  std::string out;
  std::int64_t objects = 2, lights = 32, views = 16, size = 64;
  std::int64_t env_height = 32;
  std::int64_t samples_per_pixel = 64;
  std::uint64_t seed = 0;
  std::string envmaps;  // folder of EXR files instead of procedural lights
  int threads = 0;      // 0: all cores
  std::function<void(std::string const&)> say;
};
struct SynthReport {
  std::int64_t scenes = 0, frames = 0;
  std::vector<std::string> shards;
};
SynthReport generate_scenes(SynthOptions const& options);  // shards and manifest

}  // namespace duoflow::data
