#pragma once
// Solids as fields, and the surface at each of their points: what the kinds of object are made of.

#include <functional>
#include <vector>

#include "data/synth/keyed_random.h"
#include "data/synth/materials.h"
#include "data/synth/mesh.h"

namespace duoflow::data {

// Every shape's field stays inside this cube.
inline constexpr float kShapeHalfExtent = 1.15F;

struct Shape {
  SolidField field;
  std::function<Surface(Vec3)> surface;  // for points on the field's surface; from many threads
};

// ---- fields: negative inside, a distance or less outside ----

Vec3 absolute(Vec3 p);
float smooth_min(float a, float b, float width);  // min with a fillet of that width
float rounded_box(Vec3 p, Vec3 half, float radius);
float rounded_cylinder(Vec3 p, float radius, float half_height, float edge);  // along z
float capsule(Vec3 p, Vec3 from, Vec3 to, float radius);
float torus(Vec3 p, float major, float minor);  // around z
Vec3 turned_about_z(Vec3 p, float angle);

// ---- colours: those of one object lie around a hue of its own and its opposite; whites show the colour of the light best ----

Vec3 vivid(KeyedRandom& random, float hue);
Vec3 pale(KeyedRandom& random);
Surface any_surface(KeyedRandom& random, Vec3 colour);  // matte, plastic or metal

// Several solids joined with a fillet of the given width; across the fillet their surfaces blend.
struct Parts {
  std::vector<SolidField> fields;
  std::vector<Surface> surfaces;
  float fillet = 0.02F;

  void add(SolidField field, Surface const& surface);
  Shape shape() const;
};

}  // namespace duoflow::data
