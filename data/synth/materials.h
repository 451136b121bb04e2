#pragma once
// What a surface does with light: a diffuse lobe under an optional GGX lobe, and solid textures that vary it over the object.
// Directions are local: the shading normal is +z, both directions point away from the surface.

#include "data/synth/sample_points.h"
#include "data/synth/vec.h"

namespace duoflow::data {

struct Surface {
  Vec3 diffuse;       // albedo
  Vec3 specular;      // reflectance at normal incidence; all zero: no specular lobe
  float alpha = 0.3F;  // GGX width (roughness squared)
};

Surface matte(Vec3 colour);
Surface plastic(Vec3 colour, float roughness);  // 4 % specular over diffuse
Surface metal(Vec3 colour, float roughness);
Surface mix(Surface const& a, Surface const& b, float t);

struct Scattered {
  Vec3 direction;
  Vec3 weight;  // BSDF * cosine / density, the density being that of both lobes together (balance heuristic)
};
// Chooses a lobe and a direction from it. Weight 0 when the direction falls below the surface.
Scattered scatter(Surface const& surface, Vec3 outgoing, Point2 sample);
Vec3 bsdf_times_cosine(Surface const& surface, Vec3 outgoing, Vec3 incoming);
float scatter_density(Surface const& surface, Vec3 outgoing, Vec3 incoming);  // per solid angle

// Smooth value noise in [0, 1], features of size about 1: for solid textures.
float noise(Vec3 p, std::uint64_t key);

}  // namespace duoflow::data
