#include "data/synth/shape.h"

namespace duoflow::data {

Vec3 absolute(Vec3 p) { return {std::abs(p.x), std::abs(p.y), std::abs(p.z)}; }

float smooth_min(float a, float b, float width) {
  float const t = std::max(width - std::abs(a - b), 0.0F) / width;
  return std::min(a, b) - t * t * width * 0.25F;
}

float rounded_box(Vec3 p, Vec3 half, float radius) {
  Vec3 const q = absolute(p) - half + Vec3{radius, radius, radius};
  Vec3 const out{std::max(q.x, 0.0F), std::max(q.y, 0.0F), std::max(q.z, 0.0F)};
  return length(out) + std::min(std::max({q.x, q.y, q.z}), 0.0F) - radius;
}

float rounded_cylinder(Vec3 p, float radius, float half_height, float edge) {
  float const dx = std::hypot(p.x, p.y) - radius + edge, dz = std::abs(p.z) - half_height + edge;
  return std::min(std::max(dx, dz), 0.0F) + std::hypot(std::max(dx, 0.0F), std::max(dz, 0.0F)) - edge;
}

float capsule(Vec3 p, Vec3 from, Vec3 to, float radius) {
  Vec3 const along = to - from, off = p - from;
  return length(off - along * std::clamp(dot(off, along) / dot(along, along), 0.0F, 1.0F)) - radius;
}

float torus(Vec3 p, float major, float minor) { return std::hypot(std::hypot(p.x, p.y) - major, p.z) - minor; }

Vec3 turned_about_z(Vec3 p, float angle) {
  float const c = std::cos(angle), s = std::sin(angle);
  return {c * p.x + s * p.y, c * p.y - s * p.x, p.z};
}

Vec3 vivid(KeyedRandom& random, float hue) {
  return colour_of(hue + random.uniform(-0.08F, 0.08F), random.uniform(0.6F, 0.9F), random.uniform(0.65F, 0.9F));
}
Vec3 pale(KeyedRandom& random) { return colour_of(random.uniform(), random.uniform(0.02F, 0.15F), random.uniform(0.75F, 0.88F)); }

Surface any_surface(KeyedRandom& random, Vec3 colour) {
  switch (random.below(4)) {
    case 0: return matte(colour);
    case 1: return metal(mix(colour, {0.9F, 0.9F, 0.9F}, 0.35F), random.uniform(0.4F, 0.6F));
    default: return plastic(colour, random.uniform(0.35F, 0.55F));
  }
}

void Parts::add(SolidField field, Surface const& surface) {
  fields.push_back(std::move(field));
  surfaces.push_back(surface);
}

Shape Parts::shape() const {
  return {[parts = *this](Vec3 p) {
            float distance = parts.fields[0](p);
            for (std::size_t i = 1; i < parts.fields.size(); ++i) {
              distance = smooth_min(distance, parts.fields[i](p), parts.fillet);
            }
            return distance;
          },
          [parts = *this](Vec3 p) {
            Surface blend = parts.surfaces[0];
            float nearest = parts.fields[0](p);
            for (std::size_t i = 1; i < parts.fields.size(); ++i) {
              float const distance = parts.fields[i](p);
              blend = mix(blend, parts.surfaces[i], smooth_step(-0.5F * parts.fillet, 0.5F * parts.fillet, nearest - distance));
              nearest = std::min(nearest, distance);
            }
            return blend;
          }};
}

}  // namespace duoflow::data
