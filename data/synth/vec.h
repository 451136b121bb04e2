#pragma once
// Three floats with the few operations the tracer needs.

#include <algorithm>
#include <cmath>

namespace duoflow::data {

struct Vec3 {
  float x = 0, y = 0, z = 0;
};

inline Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
inline Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
inline Vec3 operator-(Vec3 a) { return {-a.x, -a.y, -a.z}; }
inline Vec3 operator*(Vec3 a, Vec3 b) { return {a.x * b.x, a.y * b.y, a.z * b.z}; }
inline Vec3 operator*(Vec3 a, float s) { return {a.x * s, a.y * s, a.z * s}; }
inline Vec3 operator*(float s, Vec3 a) { return a * s; }
inline float dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
inline Vec3 cross(Vec3 a, Vec3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
inline float length(Vec3 a) { return std::sqrt(dot(a, a)); }
inline Vec3 normalised(Vec3 a) { return a * (1.0F / std::max(length(a), 1e-20F)); }
inline Vec3 mix(Vec3 a, Vec3 b, float t) { return a * (1.0F - t) + b * t; }
inline float mean(Vec3 a) { return (a.x + a.y + a.z) * (1.0F / 3.0F); }

// 0 below `from`, 1 above `to`, smooth between.
inline float smooth_step(float from, float to, float x) {
  float const t = std::clamp((x - from) / (to - from), 0.0F, 1.0F);
  return t * t * (3.0F - 2.0F * t);
}

// Right-handed orthonormal axes whose third axis is a unit vector n.
struct Frame {
  Vec3 s, t, n;
  explicit Frame(Vec3 normal) : n(normal) {
    s = normalised(std::abs(n.z) < 0.9F ? cross({0, 0, 1}, n) : cross({1, 0, 0}, n));
    t = cross(n, s);
  }
  Vec3 to_local(Vec3 v) const { return {dot(v, s), dot(v, t), dot(v, n)}; }
  Vec3 to_world(Vec3 v) const { return s * v.x + t * v.y + n * v.z; }
};

}  // namespace duoflow::data
