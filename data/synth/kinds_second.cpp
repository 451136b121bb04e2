// The second eight kinds of object, and the table of all.

#include <array>
#include <numbers>

#include "data/synth/kinds.h"

namespace duoflow::data {
namespace {

constexpr float kTurn = 2 * std::numbers::pi_v<float>;

// A plastic of one colour between stripes of another, along a coordinate that runs through `stripes` periods a unit.
Surface striped(Surface const& a, Surface const& b, float coordinate) {
  return mix(a, b, smooth_step(-0.15F, 0.15F, std::sin(kTurn * coordinate)));
}

// Angle and offset of the sector of a wheel with `count` spokes that p lies in: p turned into the sector around +x.
Vec3 into_sector(Vec3 p, float count) {
  float const angle = std::atan2(p.y, p.x), width = kTurn / count;
  return turned_about_z(p, std::round(angle / width) * width);
}

void grow(Parts& parts, KeyedRandom& random, Vec3 from, Vec3 direction, float reach, float thickness, int levels,
          std::vector<Surface> const& by_level) {
  Vec3 const to = from + direction * reach;
  parts.add([=](Vec3 p) { return capsule(p, from, to, thickness); }, by_level[static_cast<std::size_t>(levels)]);
  if (levels == 0) {
    parts.add([=](Vec3 p) { return length(p - to) - 1.7F * thickness; }, by_level.back());
    return;
  }
  float const turn = random.uniform(0, kTurn);
  Frame const frame(direction);
  for (int i = 0; i < 3; ++i) {
    float const phi = turn + kTurn * static_cast<float>(i) / 3 + random.uniform(-0.4F, 0.4F), spread = random.uniform(0.7F, 1.1F);
    Vec3 const sideways = frame.s * std::cos(phi) + frame.t * std::sin(phi);
    grow(parts, random, to, normalised(direction + sideways * spread), reach * random.uniform(0.6F, 0.78F), 0.72F * thickness,
         levels - 1, by_level);
  }
}

}  // namespace

Shape make_column(KeyedRandom random) {
  float const points = static_cast<float>(3 + random.below(4)), depth = random.uniform(0.1F, 0.22F);
  float const twist = random.uniform(0.7F, 1.7F) * (random.below(2) == 0 ? 1.0F : -1.0F), taper = random.uniform(0.05F, 0.3F);
  float const hue = random.uniform();
  Surface const ridge = plastic(vivid(random, hue), 0.4F), valley = plastic(vivid(random, hue + 0.42F), 0.45F);
  Surface const cap = any_surface(random, pale(random));
  auto const wave = [=](Vec3 p) { return std::cos(points * (std::atan2(p.y, p.x) - twist * p.z)); };
  return {[=](Vec3 p) {
            float const radius = (0.52F + depth * wave(p)) * (1 - taper * p.z);
            // The ridges lean and taper: the slack keeps the field below a distance.
            float const side = (std::hypot(p.x, p.y) - radius) * 0.6F, ends = std::abs(p.z) - 0.98F;
            return -smooth_min(-side, -ends, 0.08F);
          },
          [=](Vec3 p) { return std::abs(p.z) > 0.95F ? cap : mix(valley, ridge, smooth_step(-0.3F, 0.1F, wave(p))); }};
}

Shape make_mushrooms(KeyedRandom random) {
  Parts parts;
  parts.fillet = 0.06F;
  float const hue = random.uniform();
  int const count = 2 + random.below(3);
  float const turn = random.uniform(0, kTurn);
  parts.add([](Vec3 p) { return rounded_cylinder(p - Vec3{0, 0, -0.9F}, 0.9F, 0.1F, 0.08F); }, matte(vivid(random, 0.3F)));
  for (int i = 0; i < count; ++i) {
    float const phi = turn + kTurn * static_cast<float>(i) / static_cast<float>(count), height = random.uniform(0.1F, 0.75F);
    float const radius = random.uniform(0.32F, 0.46F);
    Vec3 const foot{0.45F * std::cos(phi), 0.45F * std::sin(phi), -0.9F}, top{1.1F * foot.x, 1.1F * foot.y, height};
    parts.add([=](Vec3 p) { return capsule(p, foot, top, 0.11F); }, matte(pale(random)));
    parts.add(
        [=](Vec3 p) {  // half an egg, hollow below
          Vec3 const q = p - top;
          float const egg = length({q.x, q.y, 1.25F * q.z}) - radius, hollow = length(q + Vec3{0, 0, 0.9F * radius}) - radius;
          return 0.8F * -smooth_min(-egg, hollow, 0.05F);
        },
        plastic(vivid(random, hue + 0.23F * static_cast<float>(i)), random.uniform(0.3F, 0.5F)));
  }
  return parts.shape();
}

Shape make_coral(KeyedRandom random) {
  Parts parts;
  parts.fillet = 0.05F;
  float const hue = random.uniform();
  std::vector<Surface> by_level;
  for (int level = 0; level < 3; ++level) {
    by_level.push_back(plastic(vivid(random, hue + 0.12F * static_cast<float>(level)), random.uniform(0.35F, 0.55F)));
  }
  by_level.push_back(any_surface(random, pale(random)));
  grow(parts, random, {0, 0, -0.95F}, normalised({random.uniform(-0.1F, 0.1F), random.uniform(-0.1F, 0.1F), 1}), 0.62F, 0.13F, 2,
       by_level);
  parts.add([](Vec3 p) { return rounded_cylinder(p - Vec3{0, 0, -0.97F}, 0.5F, 0.1F, 0.08F); }, matte(pale(random)));
  return parts.shape();
}

Shape make_shell(KeyedRandom random) {
  constexpr int kBalls = 72;
  float const turns = random.uniform(2.2F, 3.0F), growth = random.uniform(2.6F, 3.6F), ribs = static_cast<float>(9 + random.below(8));
  float const hue = random.uniform();
  Surface const light = plastic(pale(random), 0.35F), dark = plastic(vivid(random, hue), 0.4F);
  struct Ball {
    Vec3 centre;
    float radius, along;
  };
  std::vector<Ball> balls;
  for (int i = 0; i < kBalls; ++i) {  // a logarithmic spiral that sinks as it widens
    float const along = static_cast<float>(i) / (kBalls - 1), size = std::exp(growth * (along - 1)), phi = kTurn * turns * along;
    balls.push_back({{0.5F * size * std::cos(phi), 0.5F * size * std::sin(phi), 0.75F - 1.15F * size}, 0.36F * size, along});
  }
  auto const nearest = [balls](Vec3 p) {
    std::array<float, 2> found{10, 0};  // distance, place along the spiral
    for (Ball const& ball : balls) {
      float const distance = length(p - ball.centre) - ball.radius;
      if (distance < found[0]) { found = {distance, ball.along}; }
    }
    return found;
  };
  return {[=](Vec3 p) {
            float distance = 10;
            for (Ball const& ball : balls) { distance = smooth_min(distance, length(p - ball.centre) - ball.radius, 0.03F); }
            return distance;
          },
          [=](Vec3 p) { return striped(light, dark, ribs * nearest(p)[1] * turns / 3); }};
}

Shape make_gear(KeyedRandom random) {
  Parts parts;
  float const teeth = static_cast<float>(9 + random.below(8)), holes = static_cast<float>(3 + random.below(4));
  float const hue = random.uniform(), lean = random.uniform(-0.35F, 0.35F), turn = random.uniform(0, kTurn);
  Surface const wheel = any_surface(random, vivid(random, hue)), plinth = matte(pale(random));
  // Stands upright on its plinth: the wheel's axis is y, leaning.
  parts.add(
      [=](Vec3 at) {
        Vec3 const q = at - Vec3{0, 0, 0.12F};
        Vec3 const p = turned_about_z({q.x, q.z, std::cos(lean) * q.y + std::sin(lean) * q.x}, turn);
        float const ring = rounded_cylinder(p, 0.68F, 0.17F, 0.03F);
        float const tooth = rounded_box(into_sector(p, teeth) - Vec3{0.72F, 0, 0}, {0.12F, 0.45F * 0.72F * kTurn / teeth / 2, 0.15F}, 0.03F);
        float const hole = length(Vec3{1, 1, 0} * (into_sector(p, holes) - Vec3{0.4F, 0, 0})) - 0.14F;
        float const hub = std::hypot(p.x, p.y) - 0.1F;
        return 0.85F * -smooth_min(-smooth_min(ring, tooth, 0.04F), std::min(hole, hub), 0.04F);
      },
      wheel);
  parts.add([](Vec3 p) { return rounded_box(p - Vec3{0, 0, -0.85F}, {0.6F, 0.35F, 0.2F}, 0.05F); }, plinth);
  return parts.shape();
}

Shape make_lattice(KeyedRandom random) {
  float const cells = static_cast<float>(2 + random.below(2)), pitch = 1.5F / cells, hue = random.uniform();
  float const bore = pitch * random.uniform(0.3F, 0.38F);
  float const twist = random.uniform(-0.5F, 0.5F);
  std::uint64_t const key = random.bits();
  Surface const outside = plastic(vivid(random, hue), 0.45F), inside = matte(pale(random)), worn = plastic(vivid(random, hue + 0.5F), 0.5F);
  auto const block = [](Vec3 p) { return rounded_box(p, {0.75F, 0.75F, 0.75F}, 0.08F); };
  auto const bores = [=](Vec3 p) {
    float const first = -0.5F * (cells - 1) * pitch;
    auto const off = [&](float x) { return x - first - pitch * std::clamp(std::round((x - first) / pitch), 0.0F, cells - 1); };
    Vec3 const q{off(p.x), off(p.y), off(p.z)};
    return std::min({std::hypot(q.x, q.y), std::hypot(q.y, q.z), std::hypot(q.x, q.z)}) - bore;
  };
  auto const untwisted = [=](Vec3 p) { return turned_about_z(p, twist * p.z); };
  return {[=](Vec3 p) { return 0.85F * -smooth_min(-block(untwisted(p)), bores(untwisted(p)), 0.05F); },
          [=](Vec3 p) {
            Vec3 const q = untwisted(p);
            Surface const skin = mix(outside, worn, smooth_step(0.55F, 0.62F, noise(q * 4 + Vec3{9, 9, 9}, key)));
            return mix(inside, skin, smooth_step(-0.06F, -0.02F, block(q)));
          }};
}

Shape make_gyroid(KeyedRandom random) {
  float const frequency = random.uniform(4.2F, 6.0F), wall = random.uniform(0.08F, 0.14F), hue = random.uniform();
  Vec3 const phase{random.uniform(0, kTurn), random.uniform(0, kTurn), random.uniform(0, kTurn)};
  Surface const core = plastic(vivid(random, hue), 0.4F), rim = plastic(vivid(random, hue + 0.4F), 0.45F), cut = any_surface(random, pale(random));
  auto const wave = [=](Vec3 p) {
    Vec3 const q = p * frequency + phase;
    return std::sin(q.x) * std::cos(q.y) + std::sin(q.y) * std::cos(q.z) + std::sin(q.z) * std::cos(q.x);
  };
  return {[=](Vec3 p) {
            // The wave's slope is at most about 1.5 frequency.
            float const sheet = (std::abs(wave(p)) - wall * frequency) / (1.5F * frequency), ball = length(p) - 0.9F;
            return -smooth_min(-sheet, -ball, 0.04F);
          },
          [=](Vec3 p) {
            float const out = length(p);
            return out > 0.88F ? cut : mix(core, rim, smooth_step(0.3F, 0.8F, out));
          }};
}

Shape make_chain(KeyedRandom random) {
  Parts parts;
  // A link reaches from its middle to `reach` and is half as wide; kGap is left between the first and the third inside the second.
  constexpr float kGap = 0.04F;
  float const hue = random.uniform(), tube = random.uniform(0.07F, 0.085F), reach = 0.505F - tube, half = 0.5F * reach;
  for (int i = 0; i < 3; ++i) {
    float const x = static_cast<float>(i - 1) * (reach + tube + kGap);
    float const turn = (static_cast<float>(i) + 0.5F) * kTurn / 4 + random.uniform(-0.2F, 0.2F);
    parts.fields.push_back([=](Vec3 p) {
      Vec3 const q = turned_about_z({p.y, p.z, p.x - x}, turn);  // the link's long axis is z, it lies in the plane of x
      Vec3 const bent{q.x, std::copysign(std::max(std::abs(q.z) - half, 0.0F), q.z), q.y};
      return torus(bent, reach - half, tube);
    });
    parts.surfaces.push_back(any_surface(random, i % 2 == 1 ? pale(random) : vivid(random, hue + 0.29F * static_cast<float>(i))));
  }
  return parts.shape();
}

std::span<Kind const> kinds() {
  static constexpr Kind kAll[4 * kKindGroup] = {
      {"dice", make_dice},     {"pebble", make_pebble},       {"totem", make_totem},     {"knot", make_knot},
      {"blobs", make_blobs},   {"vase", make_vase},           {"cluster", make_cluster}, {"rings", make_rings},
      {"column", make_column}, {"mushrooms", make_mushrooms}, {"coral", make_coral},     {"shell", make_shell},
      {"gear", make_gear},     {"lattice", make_lattice},     {"gyroid", make_gyroid},   {"chain", make_chain}};
  return kAll;
}

}  // namespace duoflow::data
