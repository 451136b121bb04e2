#include "data/synth/light_directions.h"

#include <gtest/gtest.h>

#include <numbers>

#include "data/synth/lights.h"

namespace duoflow::data {
namespace {

ImageF grey_map(std::int64_t height, float value) {
  return {height, 2 * height, std::vector<float>(static_cast<std::size_t>(height * 2 * height * 3), value)};
}

TEST(LightDirectionsTest, DensityIntegratesToOneAndIsUniformUnderOneGreyLight) {
  LightTable const grey({grey_map(8, 3)}), day({procedural_light(1, 0, 8, {LightKind::sun_sky}), procedural_light(1, 1, 8)});
  for (LightTable const* table : {&grey, &day}) {
    LightDirections const directions(*table);
    double sum = 0;
    for (std::int64_t t = 0; t < 8 * 16; ++t) { sum += static_cast<double>(directions.density(t) * texel_solid_angle(8, t / 16)); }
    EXPECT_NEAR(sum, 1, 1e-5);
  }
  EXPECT_NEAR(LightDirections(grey).density(37), 1 / (4 * std::numbers::pi_v<float>), 1e-6F);
}

TEST(LightDirectionsTest, DirectionsFallIntoTheirTexelAsOftenAsTheDensitySays) {
  LightTable const table({procedural_light(5, 0, 8), procedural_light(5, 1, 8, {LightKind::studio})});
  LightDirections const directions(table);
  constexpr int kDraws = 65536;
  std::vector<int> counts(8 * 16);
  for (std::uint32_t i = 0; i < kDraws; ++i) {
    LightDirections::Drawn const drawn = directions.draw(sample_point(3, i));
    ASSERT_NEAR(length(drawn.direction), 1, 1e-5F);
    ASSERT_EQ(drawn.density, directions.density(drawn.texel));
    // Off the texel's border by less than rounding at most; at a pole all columns meet.
    if (texel_towards(drawn.direction, 8, 16) != drawn.texel && std::abs(drawn.direction.z) < 0.9999F) {
      Vec3 const nudged = normalised(drawn.direction + Vec3{1e-5F, -2e-5F, 1e-5F}), back = normalised(drawn.direction - Vec3{1e-5F, -2e-5F, 1e-5F});
      ASSERT_TRUE(texel_towards(nudged, 8, 16) == drawn.texel || texel_towards(back, 8, 16) == drawn.texel);
    }
    ++counts[static_cast<std::size_t>(drawn.texel)];
  }
  for (std::int64_t t = 0; t < 8 * 16; ++t) {
    double const expected = kDraws * static_cast<double>(directions.density(t) * texel_solid_angle(8, t / 16));
    EXPECT_NEAR(counts[static_cast<std::size_t>(t)], expected, 4 + 0.03 * expected) << t;
  }
}

TEST(LightDirectionsTest, ASingleBrightTexelGetsEveryDirection) {
  ImageF map = grey_map(8, 0);
  map.pixels[(3 * 16 + 5) * 3] = 2;
  LightDirections const directions{LightTable({map})};
  for (std::uint32_t i = 0; i < 64; ++i) { EXPECT_EQ(directions.draw(sample_point(1, i)).texel, 3 * 16 + 5); }
  EXPECT_EQ(directions.density(0), 0);
  EXPECT_NEAR(directions.density(3 * 16 + 5), 1 / texel_solid_angle(8, 3), 1e-3F);
}

TEST(LightDirectionsTest, BlackLightsGiveAUniformDensity) {
  LightDirections const directions{LightTable({grey_map(4, 0)})};
  EXPECT_NEAR(directions.draw({0.3F, 0.7F}).density, 1 / (4 * std::numbers::pi_v<float>), 1e-6F);
}

}  // namespace
}  // namespace duoflow::data
