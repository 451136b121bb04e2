// The soft kinds of light, and the studio's. Numbers of sky and area are those of published scenes: an edit changes their data sets.

#include "data/synth/light_kinds.h"

#include <numbers>
#include <vector>

namespace duoflow::data {

Vec3 from_angles(float elevation, float azimuth) {
  return {std::cos(elevation) * std::cos(azimuth), std::cos(elevation) * std::sin(azimuth), std::sin(elevation)};
}

namespace {

constexpr float kDegree = std::numbers::pi_v<float> / 180;

struct Panel {
  Frame frame;  // n: towards the panel's centre
  float half_width, half_height;  // tangents of the half angles
  bool round;
  Vec3 radiance;
  float softness = 0.2F;  // the edge fades from 1 - softness to 1 + softness of the half angles

  void turn(float angle) {
    Vec3 const s = frame.s, t = frame.t;
    frame.s = s * std::cos(angle) + t * std::sin(angle);
    frame.t = cross(frame.n, frame.s);
  }
  Vec3 seen_from(Vec3 d) const {
    Vec3 const local = frame.to_local(d);
    if (local.z < 0.05F) {
      return {};
    }
    float const x = std::abs(local.x / local.z) / half_width, y = std::abs(local.y / local.z) / half_height;
    float const edge = round ? std::sqrt(x * x + y * y) : std::max(x, y);
    return radiance * (1 - smooth_step(1 - softness, 1 + softness, edge));
  }
};

Sky panels_in_room(std::vector<Panel> panels, Vec3 room) {
  return [panels = std::move(panels), room](Vec3 d) {
    Vec3 sum = room * (0.7F + 0.3F * d.z);
    for (Panel const& panel : panels) {
      sum = sum + panel.seen_from(d);
    }
    return sum;
  };
}

}  // namespace

Sky make_sky(KeyedRandom random) {
  float const radius = random.uniform(13, 20) * kDegree, hue = random.uniform();
  Vec3 const sun = from_angles(std::asin(random.uniform(-0.1F, 0.97F)), random.uniform(0, 360) * kDegree);
  float const sun_share = random.uniform(0.38F, 0.62F);  // of the light of the whole sphere
  Vec3 const sun_colour = colour_of(hue, random.uniform(0.2F, 0.75F), 1);
  Vec3 const zenith = colour_of(hue + random.uniform(0.3F, 0.7F), random.uniform(0.3F, 0.8F), 1);
  Vec3 const horizon = colour_of(hue + random.uniform(-0.15F, 0.15F), random.uniform(0.1F, 0.6F), random.uniform(0.5F, 1));
  Vec3 const ground = colour_of(random.uniform(), random.uniform(0.1F, 0.6F), random.uniform(0.05F, 0.35F));
  float const strength = sun_share / (1 - sun_share) * 2 * 0.6F / (1 - std::cos(radius));  // the rest of the sphere averages 0.6
  return [=](Vec3 d) {
    Vec3 const above = mix(horizon, zenith, smooth_step(0, 0.9F, d.z));
    Vec3 const rest = mix(ground, above, smooth_step(-0.15F, 0.1F, d.z));
    float const angle = std::acos(std::clamp(dot(d, sun), -1.0F, 1.0F));
    return rest + sun_colour * (strength * (1 - smooth_step(0.65F * radius, 1.3F * radius, angle)));
  };
}

Sky make_area(KeyedRandom random) {
  std::vector<Panel> panels;
  int const count = 2 + random.below(3);
  float const hue = random.uniform();
  for (int p = 0; p < count; ++p) {
    Vec3 const centre = from_angles(std::asin(random.uniform(-0.35F, 0.95F)), random.uniform(0, 360) * kDegree);
    float const turn = random.uniform(0, 180) * kDegree;
    Panel panel{Frame(centre), std::tan(random.uniform(15, 35) * kDegree), std::tan(random.uniform(15, 35) * kDegree), random.below(2) == 0, {}};
    panel.turn(turn);
    float const power = p == 0 ? 1 : random.uniform(0.08F, 0.4F);  // equal for wide and narrow panels
    Vec3 const colour = colour_of(p == 0 ? hue : hue + random.uniform(0.2F, 0.8F), random.uniform(0.3F, 0.85F), 1);
    panel.radiance = colour * (power / (panel.half_width * panel.half_height));
    panels.push_back(panel);
  }
  Vec3 const room = colour_of(random.uniform(), random.uniform(0.1F, 0.6F), random.uniform(0.1F, 0.25F));
  return panels_in_room(std::move(panels), room);
}

Sky make_studio(KeyedRandom random) {
  std::vector<Panel> panels;
  float const front = random.uniform(0, 360);  // the azimuth the lights are set up around
  auto const place = [&](float elevation, float azimuth, float width, float height, bool round, Vec3 colour, float power) {
    Panel panel{Frame(from_angles(elevation * kDegree, (front + azimuth) * kDegree)), std::tan(width * kDegree),
                std::tan(height * kDegree), round, {}, 0.06F};
    panel.radiance = colour * (power / (panel.half_width * panel.half_height));
    panels.push_back(panel);
  };
  auto const white = [&] { return colour_of(random.below(2) == 0 ? 0.08F : 0.6F, random.uniform(0, 0.25F), 1); };  // warm or cool
  auto const gel = [&] { return colour_of(random.uniform(), random.uniform(0.6F, 0.95F), 1); };
  float const side = random.below(2) == 0 ? 1.0F : -1.0F;
  place(random.uniform(25, 55), side * random.uniform(25, 60), random.uniform(12, 24), random.uniform(12, 24), random.below(3) == 0, white(), 1);
  place(random.uniform(0, 30), -side * random.uniform(35, 80), random.uniform(18, 30), random.uniform(18, 30), false,
        random.below(3) == 0 ? gel() : white(), random.uniform(0.1F, 0.45F));
  int const rims = 1 + random.below(2);
  for (int r = 0; r < rims; ++r) {  // tall strips behind
    float const behind = (r == 0 ? side : -side) * random.uniform(125, 165);
    place(random.uniform(5, 35), behind, random.uniform(4, 7), random.uniform(20, 32), false, random.below(2) == 0 ? gel() : white(),
          random.uniform(0.2F, 0.6F));
  }
  if (random.below(2) == 0) {  // a lamp overhead
    place(random.uniform(75, 88), 0, random.uniform(8, 14), random.uniform(8, 14), true, white(), random.uniform(0.15F, 0.4F));
  }
  return panels_in_room(std::move(panels), colour_of(random.uniform(), random.uniform(0, 0.3F), random.uniform(0.03F, 0.12F)));
}

}  // namespace duoflow::data
