#pragma once
// A folder at a glance: one row per object, one column per light, a picture where both meet.

#include "data/images/image_io.h"
#include "data/shards/shard_index.h"

namespace duoflow::data {

struct SheetOptions {
  std::int64_t objects = 8, lights = 12;  // most rows and columns
};
struct ThumbnailSheet {
  Image8 image;
  std::int64_t objects = 0, lights = 0;                    // shown
  std::int64_t objects_left_out = 0, lights_left_out = 0;  // there, but not shown
};
// The first frame of each scene, or the first target of each row, in alphabetical order of objects and lights. Grey: no
// such scene.
ThumbnailSheet thumbnail_sheet(ShardIndex const& index, SheetOptions const& options);

}  // namespace duoflow::data
