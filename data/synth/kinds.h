#pragma once
// The kinds of object: seeded families of shapes.

#include <cstdint>
#include <span>

#include "data/synth/shape.h"

namespace duoflow::data {

// kinds_first.cpp
Shape make_dice(KeyedRandom random);
Shape make_pebble(KeyedRandom random);
Shape make_totem(KeyedRandom random);    // three or four blocks in a stack
Shape make_knot(KeyedRandom random);     // a torus knot
Shape make_blobs(KeyedRandom random);    // balls run together
Shape make_vase(KeyedRandom random);     // hollow
Shape make_cluster(KeyedRandom random);  // balls that touch
Shape make_rings(KeyedRandom random);    // three, linked, not touching
// kinds_second.cpp
Shape make_column(KeyedRandom random);    // a twisted, tapered star
Shape make_mushrooms(KeyedRandom random);
Shape make_coral(KeyedRandom random);     // a tree of branches
Shape make_shell(KeyedRandom random);     // a snail's
Shape make_gear(KeyedRandom random);      // a wheel with holes on a plinth
Shape make_lattice(KeyedRandom random);   // a block with holes along three axes
Shape make_gyroid(KeyedRandom random);    // a wavy wall cut out of a ball
Shape make_chain(KeyedRandom random);     // links that do not touch

struct Kind {
  char const* name;
  Shape (*make)(KeyedRandom);
};
// In groups of kKindGroup: objects of a data set take the groups in turn, each in an order of the seed's own, so the kinds of
// the first groups stay what they are when groups are appended. Group 0: surfaces that light each other little.
inline constexpr std::size_t kKindGroup = 4;
std::span<Kind const> kinds();

}  // namespace duoflow::data
