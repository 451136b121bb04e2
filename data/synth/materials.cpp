#include "data/synth/materials.h"

#include <numbers>

namespace duoflow::data {
namespace {

constexpr float kPi = std::numbers::pi_v<float>;

bool has_specular(Surface const& surface) { return mean(surface.specular) > 0; }

Vec3 fresnel(Vec3 normal_incidence, float cosine) {  // Schlick
  float const m = std::clamp(1 - cosine, 0.0F, 1.0F), m5 = m * m * m * m * m;
  return normal_incidence * (1 - m5) + Vec3{m5, m5, m5};
}

float ggx_density(float alpha, float cosine) {  // D(h)
  float const a2 = alpha * alpha, d = cosine * cosine * (a2 - 1) + 1;
  return a2 / (kPi * d * d);
}

float lambda(float alpha, float cosine) {  // Smith's, for a direction with this cosine
  float const c2 = std::max(cosine * cosine, 1e-8F);
  return 0.5F * (std::sqrt(1 + alpha * alpha * (1 - c2) / c2) - 1);
}

float specular_share(Surface const& surface, Vec3 outgoing) {
  if (!has_specular(surface)) {
    return 0;
  }
  float const specular = mean(fresnel(surface.specular, outgoing.z)), diffuse = mean(surface.diffuse);
  return diffuse <= 0 ? 1 : std::clamp(specular / (specular + diffuse), 0.1F, 0.9F);
}

// A half vector from the distribution of normals seen from `outgoing`: stretch to the unit hemisphere, pick a uniform point on
// the visible cap, stretch back (Dupuy and Benyoub 2023).
Vec3 visible_half_vector(float alpha, Vec3 outgoing, Point2 sample) {
  Vec3 const stretched = normalised({outgoing.x * alpha, outgoing.y * alpha, outgoing.z});
  float const phi = 2 * kPi * sample.x, z = (1 - sample.y) * (1 + stretched.z) - stretched.z;
  float const r = std::sqrt(std::clamp(1 - z * z, 0.0F, 1.0F));
  Vec3 const half = Vec3{r * std::cos(phi), r * std::sin(phi), z} + stretched;
  return normalised({half.x * alpha, half.y * alpha, std::max(half.z, 1e-6F)});
}

}  // namespace

Surface matte(Vec3 colour) { return {colour, {}, 1}; }
Surface plastic(Vec3 colour, float roughness) { return {colour, {0.04F, 0.04F, 0.04F}, roughness * roughness}; }
Surface metal(Vec3 colour, float roughness) { return {{}, colour, roughness * roughness}; }

Surface mix(Surface const& a, Surface const& b, float t) {
  return {mix(a.diffuse, b.diffuse, t), mix(a.specular, b.specular, t), a.alpha * (1 - t) + b.alpha * t};
}

Vec3 bsdf_times_cosine(Surface const& surface, Vec3 outgoing, Vec3 incoming) {
  if (outgoing.z <= 0 || incoming.z <= 0) {
    return {};
  }
  Vec3 value = surface.diffuse * (incoming.z / kPi);
  if (has_specular(surface)) {
    Vec3 const half = normalised(outgoing + incoming);
    float const into = mean(fresnel(surface.specular, incoming.z)), out = mean(fresnel(surface.specular, outgoing.z));
    float const shadowing = 1 / (1 + lambda(surface.alpha, outgoing.z) + lambda(surface.alpha, incoming.z));
    value = value * ((1 - into) * (1 - out)) + fresnel(surface.specular, dot(outgoing, half)) *
                                                   (ggx_density(surface.alpha, half.z) * shadowing / (4 * outgoing.z));
  }
  return value;
}

float scatter_density(Surface const& surface, Vec3 outgoing, Vec3 incoming) {
  if (outgoing.z <= 0 || incoming.z <= 0) {
    return 0;
  }
  float const share = specular_share(surface, outgoing);
  float density = (1 - share) * incoming.z / kPi;
  if (share > 0) {
    Vec3 const half = normalised(outgoing + incoming);
    density += share * ggx_density(surface.alpha, half.z) / (4 * outgoing.z * (1 + lambda(surface.alpha, outgoing.z)));
  }
  return density;
}

Scattered scatter(Surface const& surface, Vec3 outgoing, Point2 sample) {
  float const share = specular_share(surface, outgoing);
  Vec3 incoming;
  if (sample.x < share) {  // the used part of the coordinate is stretched out again, so stratification survives the choice
    Vec3 const half = visible_half_vector(surface.alpha, outgoing, {sample.x / share, sample.y});
    incoming = half * (2 * dot(outgoing, half)) - outgoing;
  } else {
    float const phi = 2 * kPi * (sample.x - share) / (1 - share), r = std::sqrt(sample.y);
    incoming = {r * std::cos(phi), r * std::sin(phi), std::sqrt(std::max(0.0F, 1 - sample.y))};
  }
  if (share == 0) {  // pure cosine sampling: the ratio is the albedo exactly
    return {incoming, surface.diffuse};
  }
  float const density = scatter_density(surface, outgoing, incoming);
  if (density <= 0) {
    return {incoming, {}};
  }
  return {incoming, bsdf_times_cosine(surface, outgoing, incoming) * (1 / density)};
}

float noise(Vec3 p, std::uint64_t key) {
  float const floors[3] = {std::floor(p.x), std::floor(p.y), std::floor(p.z)};
  float const tx = smooth_step(0, 1, p.x - floors[0]), ty = smooth_step(0, 1, p.y - floors[1]), tz = smooth_step(0, 1, p.z - floors[2]);
  auto const lattice = [&](int dx, int dy, int dz) {
    std::uint64_t h = key;
    h = mix_bits(h ^ static_cast<std::uint64_t>(static_cast<std::int64_t>(floors[0]) + dx));
    h = mix_bits(h ^ static_cast<std::uint64_t>(static_cast<std::int64_t>(floors[1]) + dy));
    h = mix_bits(h ^ static_cast<std::uint64_t>(static_cast<std::int64_t>(floors[2]) + dz));
    return static_cast<float>(h >> 40) * 0x1p-24F;
  };
  auto const along_x = [&](int dy, int dz) { return std::lerp(lattice(0, dy, dz), lattice(1, dy, dz), tx); };
  return std::lerp(std::lerp(along_x(0, 0), along_x(1, 0), ty), std::lerp(along_x(0, 1), along_x(1, 1), ty), tz);
}

}  // namespace duoflow::data
