// The first eight kinds of object. Their numbers are those of published scenes and of weights trained on them: an edit here changes
// every data set of these kinds.

#include "data/synth/kinds.h"

#include <array>
#include <numbers>

namespace duoflow::data {
namespace {

constexpr float kPi = std::numbers::pi_v<float>;

}  // namespace

Shape make_dice(KeyedRandom random) {
  float const hue = random.uniform();
  // Opposite faces share a colour.
  Surface const x_face = plastic(vivid(random, hue), 0.4F), y_face = plastic(vivid(random, hue + 0.36F), 0.4F);
  Surface const z_face = plastic(vivid(random, hue + 0.63F), 0.4F), pip = plastic(pale(random), 0.45F);
  Surface const edge = metal({0.92F, 0.85F, 0.75F}, 0.45F);
  std::vector<Vec3> pips;
  auto const face = [&](Vec3 n, Vec3 u, Vec3 v, std::vector<std::array<float, 2>> const& places) {
    for (auto const& place : places) {
      pips.push_back(n * 0.7F + u * (place[0] * 0.34F) + v * (place[1] * 0.34F));
    }
  };
  Vec3 const x{1, 0, 0}, y{0, 1, 0}, z{0, 0, 1};
  face(z, x, y, {{0, 0}});
  face(x, y, z, {{-1, -1}, {1, 1}});
  face(y, x, z, {{-1, -1}, {0, 0}, {1, 1}});
  face(-y, x, z, {{-1, -1}, {-1, 1}, {1, -1}, {1, 1}});
  face(-x, y, z, {{-1, -1}, {-1, 1}, {1, -1}, {1, 1}, {0, 0}});
  face(-z, x, y, {{-1, -1}, {-1, 0}, {-1, 1}, {1, -1}, {1, 0}, {1, 1}});
  auto const pip_distance = [pips](Vec3 p) {
    float distance = 10;
    for (Vec3 const& centre : pips) {
      distance = std::min(distance, length(p - centre) - 0.14F);
    }
    return distance;
  };
  return {[=](Vec3 p) { return -smooth_min(-rounded_box(p, {0.68F, 0.68F, 0.68F}, 0.17F), pip_distance(p), 0.04F); },
          [=](Vec3 p) {
            if (pip_distance(p) < 0.02F) {
              return pip;
            }
            Vec3 const a = absolute(p);
            float const middle = a.x + a.y + a.z - std::max({a.x, a.y, a.z}) - std::min({a.x, a.y, a.z});
            if (middle > 0.565F) {
              return edge;
            }
            return a.x > a.y && a.x > a.z ? x_face : a.y > a.z ? y_face : z_face;
          }};
}

Shape make_pebble(KeyedRandom random) {
  std::uint64_t const key = random.bits();
  float const hue = random.uniform(), frequency = random.uniform(2.6F, 3.8F), depth = random.uniform(0.1F, 0.16F);
  Vec3 const phase{random.uniform(0, 6), random.uniform(0, 6), random.uniform(0, 6)};
  Surface const low = plastic(vivid(random, hue), 0.45F), high = plastic(pale(random), 0.4F), spots = matte(vivid(random, hue + 0.5F));
  auto const height = [=](Vec3 p) {  // in [-1, 1], a function of direction
    Vec3 const d = normalised(p) * frequency + phase;
    return (std::sin(d.x + 1.3F * std::sin(d.y)) + std::sin(d.y + 1.3F * std::sin(d.z)) + std::sin(d.z + 1.3F * std::sin(d.x))) / 3;
  };
  return {[=](Vec3 p) { return 0.7F * (length(p) - 0.8F - depth * height(p)); },
          [=](Vec3 p) {
            float const spot = noise(p * 3.5F + Vec3{20, 20, 20}, key);
            return mix(mix(low, high, smooth_step(-0.04F, 0.04F, height(p))), spots, smooth_step(0.62F, 0.67F, spot));
          }};
}

Shape make_totem(KeyedRandom random) {
  Parts parts;
  float const hue = random.uniform();
  int const count = 3 + random.below(2);
  float const height = 2.0F / static_cast<float>(count);
  for (int i = 0; i < count; ++i) {
    Vec3 const centre{0, 0, -1 + height * (static_cast<float>(i) + 0.5F)};
    float const turn = random.uniform(0, kPi), c = std::cos(turn), s = std::sin(turn), width = random.uniform(0.42F, 0.62F);
    float const half = 0.56F * height;
    int const form = (i + random.below(2)) % 3;
    parts.fields.push_back([=](Vec3 at) {
      Vec3 const q = at - centre, p{c * q.x + s * q.y, c * q.y - s * q.x, q.z};
      switch (form) {
        case 0: return rounded_box(p, {width, 0.85F * width, half}, 0.1F);
        case 1: return (length({p.x / width, p.y / width, p.z / half}) - 1) * std::min(width, half);
        default: return rounded_cylinder(p, width, half, 0.08F);
      }
    });
    Vec3 const colour = i % 3 == 1 ? pale(random) : vivid(random, hue + 0.37F * static_cast<float>(i));
    parts.surfaces.push_back(any_surface(random, colour));
  }
  return parts.shape();
}

Shape make_knot(KeyedRandom random) {
  constexpr int kSegments = 120;
  float const p = 2, q = random.below(2) == 0 ? 3.0F : 5.0F, tube = q == 3 ? 0.2F : 0.15F;
  std::vector<Vec3> curve;
  for (int i = 0; i <= kSegments; ++i) {
    float const phi = 2 * kPi * static_cast<float>(i % kSegments) / kSegments, r = 0.6F + 0.27F * std::cos(q * phi);
    // Stands upright, so that the cameras around it see through its middle.
    curve.push_back({r * std::cos(p * phi), 0.33F * std::sin(q * phi), r * std::sin(p * phi)});
  }
  float const hue = random.uniform(), bands = static_cast<float>(3 + random.below(3));
  Surface const first = plastic(vivid(random, hue), 0.4F), second = plastic(vivid(random, hue + 0.45F), 0.4F);
  return {[=](Vec3 at) {
            float nearest = 100;
            for (std::size_t i = 0; i + 1 < curve.size(); ++i) {
              Vec3 const along = curve[i + 1] - curve[i], off = at - curve[i];
              float const t = std::clamp(dot(off, along) / dot(along, along), 0.0F, 1.0F);
              Vec3 const gap = off - along * t;
              nearest = std::min(nearest, dot(gap, gap));
            }
            return std::sqrt(nearest) - tube;
          },
          [=](Vec3 at) { return mix(first, second, smooth_step(-0.12F, 0.12F, std::sin(bands * std::atan2(at.z, at.x) + 3 * at.y))); }};
}

Shape make_blobs(KeyedRandom random) {
  Parts parts;
  parts.fillet = 0.25F;
  float const hue = random.uniform();
  for (int i = 0; i < 6; ++i) {
    Vec3 const centre = i == 0 ? Vec3{} : random.direction() * random.uniform(0.4F, 0.6F);
    float const radius = random.uniform(0.25F, 0.42F);
    parts.fields.push_back([=](Vec3 p) { return length(p - centre) - radius; });
    Vec3 const colour = i % 3 == 2 ? pale(random) : vivid(random, hue + 0.21F * static_cast<float>(i));
    parts.surfaces.push_back(random.below(3) == 0 ? matte(colour) : plastic(colour, random.uniform(0.35F, 0.5F)));
  }
  return parts.shape();
}

Shape make_vase(KeyedRandom random) {
  float const waist = random.uniform(2.2F, 3.2F), phase = random.uniform(2.2F, 3.6F), belly = random.uniform(0.1F, 0.17F);
  float const hue = random.uniform();
  float const columns = static_cast<float>(5 + random.below(4));
  Surface const glaze = plastic(vivid(random, hue), 0.35F), ground = matte(pale(random)), rim = metal({0.9F, 0.7F, 0.5F}, 0.45F);
  return {[=](Vec3 p) {
            float const radius = 0.45F + belly * std::sin(waist * p.z + phase), rho = std::hypot(p.x, p.y);
            float const outer = -smooth_min(-(rho - radius) * 0.85F, 0.95F - std::abs(p.z), 0.08F);
            float const inner = -smooth_min(-(rho - radius + 0.12F) * 0.85F, p.z + 0.75F, 0.1F);
            return -smooth_min(-outer, inner, 0.05F);
          },
          [=](Vec3 p) {
            if (std::abs(p.z) > 0.8F) {
              return rim;
            }
            float const column = std::sin(columns * std::atan2(p.y, p.x)), band = std::sin(7.5F * p.z);
            return mix(glaze, ground, smooth_step(-0.08F, 0.08F, column * band));
          }};
}

Shape make_cluster(KeyedRandom random) {
  Parts parts;
  float const hue = random.uniform();
  constexpr int kBalls = 8;
  for (int i = 0; i < kBalls; ++i) {  // on a spiral over the sphere, shaken
    float const z = 1 - (2 * static_cast<float>(i) + 1) / kBalls, r = std::sqrt(1 - z * z), phi = 2.4F * static_cast<float>(i);
    Vec3 const centre = (Vec3{r * std::cos(phi), r * std::sin(phi), z} + 0.15F * random.direction()) * 0.58F;
    float const radius = random.uniform(0.34F, 0.44F);
    parts.fields.push_back([=](Vec3 p) { return length(p - centre) - radius; });
    Vec3 const colour = i % 3 == 0 ? pale(random) : vivid(random, hue + 0.31F * static_cast<float>(i));
    parts.surfaces.push_back(any_surface(random, colour));
  }
  return parts.shape();
}

Shape make_rings(KeyedRandom random) {
  Parts parts;
  float const hue = random.uniform();
  for (int i = 0; i < 3; ++i) {  // Borromean: three flattened rings, each in a plane of its own
    parts.fields.push_back([i](Vec3 p) {
      Vec3 const q = i == 0 ? p : i == 1 ? Vec3{p.y, p.z, p.x} : Vec3{p.z, p.x, p.y};
      return 0.66F * torus({q.x, q.y / 0.62F, q.z}, 0.85F, 0.17F);
    });
    parts.surfaces.push_back(any_surface(random, i == 1 ? pale(random) : vivid(random, hue + 0.4F * static_cast<float>(i))));
  }
  return parts.shape();
}

}  // namespace duoflow::data
