#pragma once
// Several objects in one scene, and a ground under them.

#include <cstdint>
#include <vector>

#include "data/synth/keyed_random.h"
#include "data/synth/scene.h"

namespace duoflow::data {

enum class Ground { none, disc };

// The objects side by side on one level, each turned about the vertical and scaled by a seeded amount, none touching another;
// with a disc of ground, wide enough for their shadows. The whole is one object: it fits where a single one does.
Object arranged(std::vector<Object> objects, Ground ground, std::string const& name, KeyedRandom random);

}  // namespace duoflow::data
