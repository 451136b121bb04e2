#pragma once
// The lights of scenes: their maps as the model is shown them, and the pairs of scenes that differ in nothing else.

#include <cstdint>
#include <vector>

#include "data/images/image_io.h"
#include "data/shards/raw_reader.h"
#include "data/shards/shard_index.h"

namespace duoflow::data {

// The linear, world-frame light map of a scene at the given height (its own map, or recovered from the per-frame pair
// of its first frame).
ImageF scene_light(RawReader const& reader, SceneSet const& set, SceneEntry const& scene, std::int64_t height);

// One object under two lights. Turned copies of one base map are no pair (ingest_lvsm.h: base_light).
bool is_light_pair(SceneEntry const& from, SceneEntry const& to);

// One frame index must be one camera: DataError naming object, lights and frame when the number of frames, a pose
// (beyond 1e-4) or an intrinsic (beyond 1e-2 pixels) of the two differ.
void require_same_cameras(SceneEntry const& a, SceneEntry const& b);

// All ordered pairs (into SceneSet::scenes), sorted by object, first light, second light. DataError when there is none,
// or when an object's scenes differ in their cameras.
std::vector<PairEntry> light_pairs(SceneSet const& set);

}  // namespace duoflow::data
