#pragma once
// Triangle meshes, and those of implicit solids.

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "data/synth/vec.h"

namespace duoflow::data {

using SolidField = std::function<float(Vec3)>;  // negative inside, about a distance near the surface

struct Mesh {  // closed and counter-clockwise seen from outside, unless two_sided
  std::vector<Vec3> points;
  std::vector<Vec3> normals;  // unit, outward, one per point
  std::vector<std::array<std::uint32_t, 3>> triangles;
  bool two_sided = false;  // open or turned anyhow: seen alike from both sides (the solids' crack-free back faces end a path)
};

// The zero surface of a field inside the cube [-half_extent, half_extent]^3, on a grid of `cells` cells a side, by marching
// tetrahedra. Closed if the surface stays inside the cube. Normals are the field's gradient.
Mesh mesh_of(SolidField const& field, float half_extent, int cells);

// Moves and scales a mesh so that its bounding box is centred at the origin with the longest side `longest`:
// new point = (old - centre) * scale.
struct Placement {
  Vec3 centre;
  float scale = 1;
};
Placement fit_into(Mesh& mesh, float longest);

struct Box {
  Vec3 low, high;
};
Box bounds_of(Mesh const& mesh);  // at least one point

}  // namespace duoflow::data
