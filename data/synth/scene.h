#pragma once
// Objects and the cameras around them. Z up.

#include <cstdint>
#include <functional>
#include <string>

#include "data/synth/materials.h"
#include "data/synth/mesh.h"

namespace duoflow::data {

struct SurfacePoint {
  Vec3 point;
  std::uint32_t triangle = 0;
  float u = 0, v = 0;  // weights of the triangle's second and third corner
};
using SurfaceAt = std::function<Surface(SurfacePoint const&)>;  // may be called from many threads

inline constexpr float kLongestSide = 1.4F;

struct Object {
  std::string name;
  Mesh mesh;  // longest side of the bounding box kLongestSide, centred at the origin
  SurfaceAt surface_at;
};

// Procedural object `index` of a seed: kinds (kinds.h) in an order of the seed's own, those with little light between their parts
// first; a kind's second use gets the suffix _1. Does not depend on any other object.
Object make_object(std::uint64_t seed, std::int64_t index);

struct Camera {
  float c2w[16];      // OpenCV axes, row-major
  float fxfycxcy[4];  // pixels
  std::int64_t size;  // height = width
};

inline constexpr float kLowestElevation = -10;  // of a camera, degrees

// View `view` of an object: aims at the origin up to a small jitter, far enough to have the whole object in the frame. Every 16
// consecutive views go once around, in steps of 7/16 turn: so 8 of them, or every 4th, are all around too. Elevations from the
// lowest to 60 degrees.
Camera make_camera(std::uint64_t seed, std::int64_t object, std::int64_t view, std::int64_t size, Mesh const& mesh,
                   float lowest_elevation = kLowestElevation);

}  // namespace duoflow::data
