#include "data/synth/materials.h"

#include <gtest/gtest.h>

#include <numbers>
#include <set>

namespace duoflow::data {
namespace {

constexpr float kPiFloat = std::numbers::pi_v<float>;

Vec3 from_angles(float theta, float phi) { return {std::sin(theta) * std::cos(phi), std::sin(theta) * std::sin(phi), std::cos(theta)}; }

std::vector<Surface> some_surfaces() {
  return {matte({0.8F, 0.3F, 0.1F}), plastic({0.8F, 0.3F, 0.1F}, 0.4F), metal({0.9F, 0.7F, 0.4F}, 0.5F)};
}

TEST(SamplePointTest, EveryAlignedBlockIsStratifiedInBothDimensions) {
  for (std::uint32_t block : {0U, 3U, 17U}) {
    for (std::uint32_t columns : {1U, 4U, 8U, 64U}) {
      std::set<std::uint32_t> cells;
      for (std::uint32_t i = 0; i < 64; ++i) {
        Point2 const p = sample_point(mix_bits(block + 5), block * 64 + i);
        auto const rows = static_cast<float>(64 / columns);
        cells.insert(static_cast<std::uint32_t>(p.x * static_cast<float>(columns)) * 64 + static_cast<std::uint32_t>(p.y * rows));
      }
      EXPECT_EQ(cells.size(), 64U) << "block " << block << ", " << columns << " columns";
    }
  }
}

TEST(MaterialsTest, ReciprocityHolds) {
  Vec3 const a = from_angles(0.4F, 0.3F), b = from_angles(1.1F, 2.0F);
  for (Surface const& surface : some_surfaces()) {
    Vec3 const there = bsdf_times_cosine(surface, a, b) * (1 / b.z), back = bsdf_times_cosine(surface, b, a) * (1 / a.z);
    EXPECT_NEAR(there.x, back.x, 1e-5F);
    EXPECT_NEAR(there.z, back.z, 1e-5F);
  }
}

TEST(MaterialsTest, DensityIntegratesToAtMostOneAndSamplesAgreeWithQuadrature) {
  constexpr int kTheta = 400, kPhi = 800;
  for (Surface const& surface : some_surfaces()) {
    Vec3 const outgoing = from_angles(0.7F, 0.2F);
    double density = 0, reflected = 0, sampled = 0;
    for (int i = 0; i < kTheta; ++i) {
      for (int j = 0; j < kPhi; ++j) {
        float const theta = (static_cast<float>(i) + 0.5F) / kTheta * kPiFloat / 2, phi = (static_cast<float>(j) + 0.5F) / kPhi * 2 * kPiFloat;
        double const solid_angle = static_cast<double>(std::sin(theta) * (kPiFloat / 2 / kTheta) * (2 * kPiFloat / kPhi));
        density += solid_angle * static_cast<double>(scatter_density(surface, outgoing, from_angles(theta, phi)));
        reflected += solid_angle * static_cast<double>(bsdf_times_cosine(surface, outgoing, from_angles(theta, phi)).x);
      }
    }
    constexpr std::uint32_t kSamples = 16384;
    for (std::uint32_t s = 0; s < kSamples; ++s) {
      sampled += static_cast<double>(scatter(surface, outgoing, sample_point(11, s)).weight.x) / kSamples;
    }
    EXPECT_LE(density, 1.001);  // what is missing are half vectors that reflect below the surface
    EXPECT_GT(density, 0.9);
    EXPECT_NEAR(sampled, reflected, 0.003);
    EXPECT_LE(reflected, 1.0);
  }
}

// In a furnace of radiance 1 a metal of reflectance 1 shows what single scattering keeps: never more than 1, all of it where the
// surface is smooth, and less the rougher it is (light that meets the surface twice is left out).
TEST(MaterialsTest, GgxNeverReflectsMoreThanItReceivesAndAllOfItWhenSmooth) {
  constexpr int kTheta = 400, kPhi = 200;
  auto const reflected = [&](Surface const& surface, float angle) {
    Vec3 const outgoing = from_angles(angle, 0);
    double sum = 0;
    for (int i = 0; i < kTheta; ++i) {
      float const theta = (static_cast<float>(i) + 0.5F) / kTheta * kPiFloat / 2;
      for (int j = 0; j < kPhi; ++j) {
        float const phi = (static_cast<float>(j) + 0.5F) / kPhi * kPiFloat;  // half: the rest is its mirror image
        float const solid_angle = std::sin(theta) * (kPiFloat / 2 / kTheta) * (2 * kPiFloat / kPhi);
        sum += static_cast<double>(solid_angle * bsdf_times_cosine(surface, outgoing, from_angles(theta, phi)).x);
      }
    }
    return sum;
  };
  for (float const angle : {0.05F, 0.6F, 1.1F, 1.4F}) {
    double before = 1.005;  // quadrature
    for (float const roughness : {0.3F, 0.5F, 0.7F, 0.95F}) {
      double const share = reflected(metal({1, 1, 1}, roughness), angle);
      EXPECT_LE(share, before + 0.002) << "angle " << angle << ", roughness " << roughness;
      before = share;
      EXPECT_LE(reflected(plastic({1, 1, 1}, roughness), angle), 1.005) << "angle " << angle << ", roughness " << roughness;
    }
    EXPECT_GT(before, 0.3);
  }
  EXPECT_NEAR(reflected(metal({1, 1, 1}, 0.3F), 0.05F), 1, 0.01);
}

TEST(MaterialsTest, MatteWeightIsTheAlbedoExactly) {
  Scattered const scattered = scatter(matte({0.7F, 0.2F, 0.5F}), from_angles(0.9F, 1), {0.3F, 0.6F});
  EXPECT_EQ(scattered.weight.x, 0.7F);
  EXPECT_EQ(scattered.weight.y, 0.2F);
}

TEST(MaterialsTest, NoiseStaysInTheUnitIntervalAndIsContinuousAcrossCells) {
  for (int i = -20; i < 20; ++i) {
    Vec3 const p{static_cast<float>(i) * 0.37F, 0.2F, -1.4F};
    EXPECT_GE(noise(p, 5), 0.0F);
    EXPECT_LE(noise(p, 5), 1.0F);
  }
  EXPECT_NEAR(noise({0.99999F, 0.3F, 0.2F}, 5), noise({1.00001F, 0.3F, 0.2F}, 5), 1e-3F);
}

}  // namespace
}  // namespace duoflow::data
