#pragma once
// Data folders whose every byte follows from the names of object and light: a copy can be checked without its source.

#include <cstdint>
#include <string>
#include <vector>

#include "data/shards/shard_index.h"

namespace duoflow::data::testing {

using Names = std::vector<std::string>;

struct NamedPairs {
  Names objects, lights;
  std::int64_t tokens = 3, dim = 4, targets = 2, size = 4, env_height = 2;
  DType latent_dtype = DType::f32;
  std::string producer = "producer-a";
  std::int64_t view_set = 0;
};
// Every object under every light, in the order given; all ordered pairs of an object's lights; one map per row, which
// follows from the light alone.
void write_named_pairs(std::string const& path, NamedPairs const& pairs);
// The latents of (object, light), f32: small numbers that f16 and bf16 do not all hold.
std::vector<float> named_latents(NamedPairs const& pairs, std::string const& object, std::string const& light);

struct NamedScenes {
  Names objects, lights;
  std::int64_t frames = 3, size = 4, env_height = 2;
};
void write_named_scenes(std::string const& path, NamedScenes const& scenes);

// "object/light/views" of every scene or row, and "object: light > light" of every pair, in the folder's order.
Names unit_names(std::string const& directory);
Names pair_names(std::string const& directory);
// Whether every row's (scene's) pictures, map and latents are those of its names.
void expect_named_contents(std::string const& directory);

}  // namespace duoflow::data::testing
