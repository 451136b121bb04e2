// The cameras around an object.

#include <numbers>

#include "data/synth/keyed_random.h"
#include "data/synth/scene.h"

namespace duoflow::data {
namespace {

constexpr float kDegree = std::numbers::pi_v<float> / 180;
constexpr float kFrameShare = 0.94F;  // of the half picture that the object may fill

// Smallest distance from `target` along -forward at which every point of the mesh projects inside the frame.
float fitting_distance(Mesh const& mesh, Vec3 target, Vec3 right, Vec3 down, Vec3 forward, float tangent) {
  float distance = 0;
  for (Vec3 const& p : mesh.points) {
    Vec3 const q = p - target;
    float const off_axis = std::max(std::abs(dot(q, right)), std::abs(dot(q, down)));
    distance = std::max(distance, off_axis / (kFrameShare * tangent) - dot(q, forward));
  }
  return distance;
}

float fraction(float x) { return x - std::floor(x); }

}  // namespace

Camera make_camera(std::uint64_t seed, std::int64_t object, std::int64_t view, std::int64_t size, Mesh const& mesh,
                   float lowest_elevation) {
  std::uint64_t const rig_key = make_key(seed, "rig", static_cast<std::uint64_t>(object));
  KeyedRandom rig(rig_key), random(make_key(rig_key, "view", static_cast<std::uint64_t>(view)));
  auto const round = static_cast<float>(view / 16);
  float const step = static_cast<float>((view % 16) * 7 % 16) / 16 + fraction(round * 0.618034F) / 16;
  float const azimuth = (fraction(rig.uniform() + step) * 360 + random.uniform(-4, 4)) * kDegree;
  float const sweep = fraction(rig.uniform() + static_cast<float>(view) * 0.618034F + round * 0.38F);
  float const elevation = (lowest_elevation + (60 - lowest_elevation) * sweep) * kDegree;
  float const tangent = std::tan(0.5F * random.uniform(40, 50) * kDegree);
  Vec3 const target{random.uniform(-0.02F, 0.02F), random.uniform(-0.02F, 0.02F), random.uniform(-0.02F, 0.02F)};

  Vec3 const forward =
      -Vec3{std::cos(elevation) * std::cos(azimuth), std::cos(elevation) * std::sin(azimuth), std::sin(elevation)};
  Vec3 const right = normalised(cross(forward, {0, 0, 1})), down = cross(forward, right);
  float const fit = fitting_distance(mesh, target, right, down, forward, tangent);
  Vec3 const eye = target - forward * std::max(2.2F, fit * random.uniform(1, 1.12F));

  float const s = static_cast<float>(size), focal = 0.5F * s / tangent;
  return {{right.x, down.x, forward.x, eye.x, right.y, down.y, forward.y, eye.y, right.z, down.z, forward.z, eye.z, 0, 0, 0, 1},
          {focal, focal, 0.5F * s, 0.5F * s},
          size};
}

}  // namespace duoflow::data
