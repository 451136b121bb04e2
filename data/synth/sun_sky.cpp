#include <algorithm>
#include <array>
#include <numbers>

#include "data/synth/light_kinds.h"

namespace duoflow::data {
namespace {

constexpr float kPi = std::numbers::pi_v<float>;
constexpr float kDegree = kPi / 180;

struct Perez {  // F(theta, gamma) of the five coefficients
  float a, b, c, d, e;
  float operator()(float cos_theta, float gamma) const {
    float const cosine = std::cos(gamma);
    return (1 + a * std::exp(b / cos_theta)) * (1 + c * std::exp(d * gamma) + e * cosine * cosine);
  }
};

// Appendix A.2 of the paper: luminance Y and chromaticities x, y of the sky, each a Perez function and its value at the zenith.
struct Skylight {
  std::array<Perez, 3> shape;
  Vec3 zenith;  // Y, x, y
};

Skylight skylight(float turbidity, float sun_zenith_angle) {
  float const t = turbidity, s = sun_zenith_angle, s2 = s * s, s3 = s2 * s;
  float const chi = (4.0F / 9 - t / 120) * (kPi - 2 * s);
  float const x = t * t * (0.00166F * s3 - 0.00375F * s2 + 0.00209F * s) + t * (-0.02903F * s3 + 0.06377F * s2 - 0.03202F * s + 0.00394F) +
                  (0.11693F * s3 - 0.21196F * s2 + 0.06052F * s + 0.25886F);
  float const y = t * t * (0.00275F * s3 - 0.00610F * s2 + 0.00317F * s) + t * (-0.04214F * s3 + 0.08970F * s2 - 0.04153F * s + 0.00516F) +
                  (0.15346F * s3 - 0.26756F * s2 + 0.06670F * s + 0.26688F);
  return {{Perez{0.1787F * t - 1.4630F, -0.3554F * t + 0.4275F, -0.0227F * t + 5.3251F, 0.1206F * t - 2.5771F, -0.0670F * t + 0.3703F},
           Perez{-0.0193F * t - 0.2592F, -0.0665F * t + 0.0008F, -0.0004F * t + 0.2125F, -0.0641F * t - 0.8989F, -0.0033F * t + 0.0452F},
           Perez{-0.0167F * t - 0.2608F, -0.0950F * t + 0.0092F, -0.0079F * t + 0.2102F, -0.0441F * t - 1.6537F, -0.0109F * t + 0.0529F}},
          {(4.0453F * t - 4.9710F) * std::tan(chi) - 0.2155F * t + 2.4192F, x, y}};
}

Vec3 rgb_of(float luminance, float x, float y) {  // CIE xyY to linear sRGB; what lies outside its triangle is moved to its edge
  float const big_x = x / y * luminance, big_z = (1 - x - y) / y * luminance;
  return {std::max(0.0F, 3.2406F * big_x - 1.5372F * luminance - 0.4986F * big_z),
          std::max(0.0F, -0.9689F * big_x + 1.8758F * luminance + 0.0415F * big_z),
          std::max(0.0F, 0.0557F * big_x - 0.2040F * luminance + 1.0570F * big_z)};
}

// Irradiance in klx by channel, at one wavelength for each: 133.3 klx reach the top of the air.
Vec3 sun_irradiance(float turbidity, float elevation) {
  constexpr float kWavelengths[] = {0.610F, 0.550F, 0.465F};  // micrometres
  float const degrees = std::max(elevation / kDegree, 0.0F);
  float const mass = 1 / (std::sin(elevation) + 0.15F * std::pow(degrees + 3.885F, -1.253F));
  float const beta = 0.04608F * turbidity - 0.04586F;
  float through[3];
  for (int c = 0; c < 3; ++c) {
    float const rayleigh = 0.008735F * std::pow(kWavelengths[c], -4.08F), aerosol = beta * std::pow(kWavelengths[c], -1.3F);
    through[c] = 133.3F * std::exp(-mass * (rayleigh + aerosol));
  }
  return {through[0], through[1], through[2]};
}

}  // namespace

SunSky sun_sky(float sun_elevation, float sun_azimuth, float turbidity, Vec3 ground_albedo) {
  Vec3 const sun = from_angles(sun_elevation, sun_azimuth), direct = sun_irradiance(turbidity, sun_elevation);
  Skylight const model = skylight(turbidity, kPi / 2 - sun_elevation);
  Vec3 const at_zenith{model.shape[0](1, kPi / 2 - sun_elevation), model.shape[1](1, kPi / 2 - sun_elevation),
                       model.shape[2](1, kPi / 2 - sun_elevation)};
  auto const above = [=](Vec3 d) {
    float const cos_theta = std::max(d.z, 0.01F), gamma = std::acos(std::clamp(dot(d, sun), -1.0F, 1.0F));
    return rgb_of(std::max(0.0F, model.zenith.x * model.shape[0](cos_theta, gamma) / at_zenith.x),
                  model.zenith.y * model.shape[1](cos_theta, gamma) / at_zenith.y,
                  model.zenith.z * model.shape[2](cos_theta, gamma) / at_zenith.z);
  };
  Vec3 sky_irradiance;  // on level ground: equal parts of the projected hemisphere
  constexpr int kRings = 16, kSpokes = 32;
  for (int i = 0; i < kRings * kSpokes; ++i) {
    float const r2 = (static_cast<float>(i / kSpokes) + 0.5F) / kRings, phi = (static_cast<float>(i % kSpokes) + 0.5F) / kSpokes * 2 * kPi;
    sky_irradiance = sky_irradiance +
                     above({std::sqrt(r2) * std::cos(phi), std::sqrt(r2) * std::sin(phi), std::sqrt(1 - r2)}) * (kPi / (kRings * kSpokes));
  }
  Vec3 const ground = ground_albedo * (sky_irradiance + direct * std::max(sun.z, 0.0F)) * (1 / kPi);
  return {[=](Vec3 d) { return mix(ground, above(d), smooth_step(-0.02F, 0.02F, d.z)); }, sun, direct};
}

SunSky make_sun_sky(KeyedRandom random) {
  float const elevation = std::asin(random.uniform(std::sin(5 * kDegree), std::sin(70 * kDegree))), azimuth = random.uniform(0, 2 * kPi);
  float const turbidity = random.uniform(2, 8), albedo = random.uniform(0.08F, 0.35F);
  return sun_sky(elevation, azimuth, turbidity, colour_of(random.uniform(0.06F, 0.3F), random.uniform(0, 0.4F), albedo));
}

}  // namespace duoflow::data
