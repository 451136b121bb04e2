#pragma once
// The arrays of one source of plain pairs, checked against what an import needs. Private to data/.

#include <string>

#include "data/tools/pair_import.h"
#include "data/shards/shard_index.h"

namespace duoflow::data {

// Shapes and types that the import's options and the first source settle for all: DataError naming array and
// expectation where this source has others.
struct PlainForm {
  PairSet sizes;  // tokens, dim, targets, height, width, env_height, env_width, latent_dtype, has_alpha
  bool has_env = false;
};

class PlainPairs {
 public:
  PlainPairs(PlainSource const& source, std::int64_t latents_only);
  std::int64_t pairs() const { return pairs_; }
  PlainForm form() const;
  std::vector<std::string> left_behind() const;  // arrays that no import takes

  // Of pair `row`; throw DataError naming array and row.
  std::vector<std::byte> latents(char const* name, std::int64_t row, DType dtype) const;  // name: x0, x1
  std::vector<std::uint8_t> bytes(char const* name, std::int64_t row) const;              // target_images, target_alpha
  std::vector<float> cameras(std::int64_t row) const;                                     // T x 16
  std::vector<float> intrinsics(std::int64_t row) const;                                  // T x 4; both checked
  std::vector<float> world_to_norm(std::int64_t row) const;
  std::vector<std::uint16_t> env(std::int64_t row) const;  // halves; negative radiance is 0, as read_exr has it

 private:
  bool has(char const* name) const { return arrays_.count(name) != 0; }
  PlainArray const& at(char const* name) const;
  void require(char const* name, std::vector<PlainType> const& types, std::vector<std::int64_t> const& shape) const;
  std::vector<float> finite(char const* name, std::int64_t row) const;
  void check_cameras(std::vector<float> const& c2w, std::vector<float> const& fxfycxcy, std::int64_t row) const;
  void check_shapes() const;

  std::string path_;
  std::int64_t latents_only_;
  PlainArrays arrays_;
  std::int64_t pairs_ = 0;
};

}  // namespace duoflow::data
