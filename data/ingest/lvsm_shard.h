#pragma once
// Pictures, light maps and cameras of checked scenes brought to one size and written as a shard. Private to data/.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "data/ingest/lvsm_scene.h"

namespace duoflow::data {

inline constexpr std::string_view kIngestNote = "LVSM scene folders";  // how the note of every shard of ingest begins

struct ShardFormat {
  std::int64_t size = 0;                       // square pictures
  std::int64_t env_height = 0, env_width = 0;  // of the light maps
  bool alpha = false;
  bool env_sources = false;                    // /env and rotations; else per-frame pairs
};

// The reference loader's geometry, with the shorter side brought to `size`: Lanczos, then the centre square.
struct SquareFit {
  std::int64_t height = 0, width = 0, top = 0, left = 0;
  SquareFit(ImageSize const& picture, std::int64_t size);
  // Intrinsics in pixels of the square.
  std::array<float, 4> intrinsics(LvsmFrame const& frame) const;
};

// Where the bytes come from, and with how many threads they are worked on.
struct ShardSources {
  SourceFiles const& files;
  FileTable const& table;
  int threads = 1;
};

// Of everything that a shard's bytes follow from.
std::string shard_fingerprint(std::span<LvsmScene const> scenes, ShardFormat const& format, FileTable const& table);
std::uint64_t shard_bytes(std::span<LvsmScene const> scenes, ShardFormat const& format);  // of its datasets

// DataError naming scene and frame when a picture cannot be decoded, and how many bytes were missing when the disk is full; no
// file under the final name then.
void write_lvsm_shard(std::string const& path, std::span<LvsmScene const> scenes, ShardFormat const& format, ShardSources const& sources);

}  // namespace duoflow::data
