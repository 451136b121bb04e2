#pragma once
// Small data folders with closed-form contents, and ways to hurt them.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/error.h"
#include "data/shards/shard_index.h"
#include "data/shards/shard_schema.h"

namespace duoflow::data::testing {

class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(TemporaryFolder const&) = delete;
  std::string const& path() const { return path_; }
  std::string operator/(std::string const& name) const { return path_ + "/" + name; }
  std::vector<std::string> files() const;  // names, sorted

 private:
  std::string path_;
};

std::string file_bytes(std::string const& path);
void put_bytes(std::string const& path, std::string const& bytes);
// A manifest's text (as write_manifest writes it) with its own hash made right.
std::string rehashed(std::string const& manifest);
void flip_byte(std::string const& path, std::uint64_t offset);  // its lowest bit

// Byte i of every u8 dataset and number i of every float one follow from (salt, i): no two rows are alike.
std::uint8_t sample_byte(std::uint64_t salt, std::uint64_t i);

struct PairShard {
  std::int64_t rows = 4, tokens = 3, dim = 2, targets = 3, height = 4, width = 5, env_height = 2, env_width = 4, env_rows = 2;
  DType latent_dtype = DType::bf16;
  bool alpha = true;
  std::uint64_t salt = 1;
  std::string producer = "producer-a";
  std::vector<float> mean = {1, 2}, deviation = {1, 1};
  std::vector<std::int64_t> pairs = {0, 1, 1, 0, 2, 3};  // x0, x1, ...; rows 0 and 1 are one object, 2 and 3 another
  std::int64_t env_row_of_row_0 = 0;
  float camera_scale = 1;  // another value makes the rotations senseless
};
void write_pair_shard(std::string const& path, PairShard const& shard);

struct SceneShard {
  std::vector<std::int64_t> frame_counts = {6, 5};
  std::int64_t height = 4, width = 4, env_height = 2, env_width = 4;
  bool alpha = true;
  std::uint64_t salt = 1;
};
void write_scene_shard(std::string const& path, SceneShard const& shard);

// The message of the DataError that `action` throws; a test failure if it throws none.
std::string data_error_of(std::function<void()> const& action);
::testing::AssertionResult says(std::string const& message, std::vector<std::string> const& parts);

}  // namespace duoflow::data::testing
