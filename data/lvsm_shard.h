#pragma once
// Pictures, light maps and cameras of checked scenes brought to one size and written as a shard. Private to this folder.

#include <span>
#include <string>

#include "data/lvsm_scene.h"

namespace duoflow::data {

struct ShardFormat {
  std::int64_t size = 0;                       // square pictures
  std::int64_t env_height = 0, env_width = 0;  // of the per-frame light maps
  bool alpha = false;
};

// The reference loader's geometry, with the shorter side brought to `size`: Lanczos, then the centre square.
struct SquareFit {
  std::int64_t height = 0, width = 0, top = 0, left = 0;
  SquareFit(ImageSize const& picture, std::int64_t size);
  // Intrinsics in pixels of the square.
  std::array<float, 4> intrinsics(LvsmFrame const& frame) const;
};

// DataError naming scene and frame when a picture cannot be decoded; no file under the final name then.
void write_lvsm_shard(std::string const& path, std::span<LvsmScene const> scenes, ShardFormat const& format);

}  // namespace duoflow::data
