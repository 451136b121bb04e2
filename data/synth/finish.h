#pragma once
// How an object's surface is finished, whatever its colours: what --materials chooses from.

#include <string>
#include <vector>

#include "data/synth/keyed_random.h"
#include "data/synth/scene.h"

namespace duoflow::data {

enum class Finish {
  diffuse,   // Lambert's
  glossy,    // a rough dielectric coat over it: 4 % at normal incidence, roughness 0.2 to 0.55
  metal,     // coloured reflection alone, roughness 0.2 to 0.6
  textured,  // diffuse or glossy under a solid pattern: checker, stripes, spots, marble, wood or grain
};
Finish finish_named(std::string const& name);  // DataError for another name
std::string to_string(Finish finish);

// The same object with its colours (diffuse, or of the metal) under that finish; details from `random`.
SurfaceAt refinished(SurfaceAt surface, Finish finish, KeyedRandom random);

// A surface for what brings none: two colours of one palette in soft patches.
SurfaceAt patches(KeyedRandom random);

}  // namespace duoflow::data
