#include "data/images/environment_map.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "../sample_folders.h"

namespace duoflow::data::testing {
namespace {

using Vector = std::array<float, 3>;
constexpr double kPi = std::numbers::pi;

ImageF blank(std::int64_t height, std::int64_t width, float value = 0) {
  return {height, width, std::vector<float>(static_cast<std::size_t>(3 * height * width), value)};
}

float& at(ImageF& map, std::int64_t row, std::int64_t column, std::int64_t c = 0) {
  return map.pixels[static_cast<std::size_t>(3 * (row * map.width + column) + c)];
}

ImageF varied(std::int64_t height, std::int64_t width) {
  auto map = blank(height, width);
  for (std::size_t i = 0; i < map.pixels.size(); ++i) { map.pixels[i] = static_cast<float>(sample_byte(5, i)) / 64; }
  return map;
}

void expect_near(Vector const& a, Vector const& b, double tolerance = 1e-5) {
  for (std::size_t i = 0; i < 3; ++i) { EXPECT_NEAR(a[i], b[i], tolerance) << "component " << i; }
}

// Where the red of a map is largest.
Vector brightest(ImageF const& map) {
  std::int64_t best = 0;
  for (std::int64_t i = 0; i < map.height * map.width; ++i) {
    if (map.pixels[static_cast<std::size_t>(3 * i)] > map.pixels[static_cast<std::size_t>(3 * best)]) { best = i; }
  }
  return map_direction(best / map.width, best % map.width, map.height, map.width);
}

TEST(EnvironmentMapTest, DirectionsFollowTheClosedForm) {
  auto const half = static_cast<float>(std::sqrt(0.5));
  expect_near(map_direction(0, 0, 1, 1), {1, 0, 0});  // the only pixel: theta = pi/2, phi = 0
  expect_near(map_direction(1, 1, 3, 4), {half, half, 0});   // phi = +45 degrees
  expect_near(map_direction(1, 2, 3, 4), {half, -half, 0});
  expect_near(map_direction(1, 0, 3, 4), {-half, half, 0});
  expect_near(map_direction(0, 1, 2, 3), {half, 0, half});
  expect_near(map_direction(1, 1, 2, 3), {half, 0, -half});
}

TEST(EnvironmentMapTest, AxesLieWhereTheyAreDocumented) {
  auto map = blank(64, 128);
  auto const expect_at = [&](std::int64_t row, std::int64_t column, Vector const& direction) {
    map = blank(64, 128);
    for (std::int64_t r : {row - 1, row}) {
      for (std::int64_t c : {column - 1, column}) { at(map, r, (c + 128) % 128) = 1; }  // the four pixels around a line crossing
    }
    EXPECT_NEAR(map_lookup(map, direction)[0], 1, 1e-5);
  };
  expect_at(32, 64, {1, 0, 0});    // centre column: +X
  expect_at(32, 32, {0, 1, 0});    // left quarter line: +Y
  expect_at(32, 96, {0, -1, 0});
  expect_at(32, 0, {-1, 0, 0});    // the seam
  map = blank(64, 128);
  for (std::int64_t c = 0; c < 128; ++c) { at(map, 0, c) = 1; }
  EXPECT_NEAR(map_lookup(map, {0, 0, 1})[0], 1, 1e-5);
  EXPECT_NEAR(map_lookup(map, {0, 0, -1})[0], 0, 1e-5);
}

TEST(EnvironmentMapTest, LookUpTowardsAPixelIsThatPixel) {
  auto map = varied(6, 11);
  for (std::int64_t row = 0; row < 6; ++row) {
    for (std::int64_t column = 0; column < 11; ++column) {
      expect_near(map_lookup(map, map_direction(row, column, 6, 11)), {at(map, row, column, 0), at(map, row, column, 1), at(map, row, column, 2)}, 1e-4);
    }
  }
}

TEST(EnvironmentMapTest, MeanLuminanceIsWeightedBySolidAngle) {
  EXPECT_NEAR(mean_luminance(blank(7, 9, 2.5F)), 2.5, 1e-6);
  auto map = blank(4, 2);
  for (std::int64_t c = 0; c < 2; ++c) {
    for (std::int64_t k = 0; k < 3; ++k) { at(map, 0, c, k) = 1; }
  }
  EXPECT_NEAR(mean_luminance(map), (1 - std::cos(kPi / 4)) / 2, 1e-6);  // the cap of 45 degrees
  auto green = blank(1, 1);
  at(green, 0, 0, 1) = 1;
  EXPECT_NEAR(mean_luminance(green), 0.7152, 1e-6);
}

TEST(EnvironmentMapTest, ShrinkingKeepsTheMean) {
  auto const map = varied(31, 50);
  for (auto const& [height, width] : {std::pair<std::int64_t, std::int64_t>{7, 13}, {1, 1}, {30, 50}, {31, 7}, {8, 16}}) {
    EXPECT_NEAR(mean_luminance(resize_map(map, height, width)), mean_luminance(map), 1e-5) << height << " x " << width;
  }
  EXPECT_EQ(resize_map(map, 31, 50).pixels, map.pixels);
}

TEST(EnvironmentMapTest, GrowingIsBilinearAndWraps) {
  auto map = blank(1, 2);
  at(map, 0, 0) = 1;
  at(map, 0, 1) = 3;
  auto grown = resize_map(map, 2, 4);
  for (std::int64_t row = 0; row < 2; ++row) {
    EXPECT_FLOAT_EQ(at(grown, row, 0), 1.5F);  // a quarter of the neighbour across the seam
    EXPECT_FLOAT_EQ(at(grown, row, 1), 1.5F);
    EXPECT_FLOAT_EQ(at(grown, row, 2), 2.5F);
    EXPECT_FLOAT_EQ(at(grown, row, 3), 2.5F);
  }
}

TEST(EnvironmentMapTest, RotationAboutZRollsColumns) {
  auto map = varied(8, 16);
  auto turned = rotate_map(map, {0, -1, 0, 1, 0, 0, 0, 0, 1});  // +X looks up +Y, a quarter to the left
  for (std::int64_t row = 0; row < 8; ++row) {
    for (std::int64_t column = 0; column < 16; ++column) { EXPECT_NEAR(at(turned, row, column), at(map, row, (column + 12) % 16), 1e-4); }
  }
}

TEST(EnvironmentMapTest, CameraMapReachesTheWorldAlongTheCamerasAxes) {
  double const a = 0.8, b = -0.5;  // some rotation, no symmetry
  double const ca = std::cos(a), sa = std::sin(a), cb = std::cos(b), sb = std::sin(b);
  std::array<double, 16> const pose{ca, -sa * cb, sa * sb, 5, sa, ca * cb, -ca * sb, 6, 0, sb, cb, 7, 0, 0, 0, 1};
  std::array<float, 16> c2w{};
  for (std::size_t i = 0; i < 16; ++i) { c2w[i] = static_cast<float>(pose[i]); }
  auto const column_of = [&](std::size_t k, float sign) { return Vector{sign * c2w[k], sign * c2w[4 + k], sign * c2w[8 + k]}; };
  struct Case {
    std::int64_t row, column;
    Vector direction;
  };
  for (Case const& c : {Case{32, 32, column_of(2, 1)}, Case{32, 64, column_of(0, 1)}, Case{32, 96, column_of(2, -1)}, Case{32, 0, column_of(0, -1)},
                        Case{0, 5, column_of(1, -1)}, Case{63, 5, column_of(1, 1)}}) {
    auto map = blank(64, 128);
    bool const pole = c.row % 63 == 0;
    for (std::int64_t k = 0; k < (pole ? 128 : 2); ++k) { at(map, c.row, (c.column + k + 127) % 128) = 1; }
    auto const found = brightest(camera_map_to_world(map, c2w.data(), 64, 128));
    expect_near(found, c.direction, 0.06);  // a pixel is 0.05 rad
  }
  auto const constant = camera_map_to_world(blank(8, 16, 1.5F), c2w.data(), 5, 11);
  for (float const value : constant.pixels) { EXPECT_NEAR(value, 1.5, 1e-6); }
}

TEST(EnvironmentMapTest, LinearRadianceIsRecoveredFromThePair) {
  auto map = blank(16, 32);
  for (std::size_t i = 0; i < map.pixels.size(); ++i) { map.pixels[i] = 0.02F * std::exp(static_cast<float>(i) / 200.0F); }  // 0.02 to 43
  map.pixels[0] = 0;
  auto const pair = encode_pair(map);
  auto const back = recover_linear(pair.ldr, pair.log_map);
  EXPECT_EQ(back.pixels[0], 0);
  for (std::size_t i = 1; i < map.pixels.size(); ++i) { EXPECT_NEAR(back.pixels[i] / map.pixels[i], 1, 0.03) << map.pixels[i]; }
  EXPECT_NEAR(back.pixels.back() / map.pixels.back(), 1, 0.01) << "the absolute scale";
}

TEST(EnvironmentMapTest, MapsWithNothingToFitKeepTheirOrder) {
  auto const white = encode_pair(blank(2, 4, 1));
  for (float const value : recover_linear(white.ldr, white.log_map).pixels) { EXPECT_NEAR(value, 1, 1e-5); }
  auto const black = encode_pair(blank(2, 4, 0));
  for (float const value : recover_linear(black.ldr, black.log_map).pixels) { EXPECT_EQ(value, 0); }
}

TEST(EnvironmentMapTest, PairsOfDifferentSizesAreErrors) {
  auto const a = encode_pair(blank(2, 4, 1)), b = encode_pair(blank(4, 8, 1));
  EXPECT_TRUE(says(data_error_of([&] { recover_linear(a.ldr, b.log_map); }), {"2 x 4 x 3", "4 x 8 x 3"}));
  EXPECT_TRUE(says(data_error_of([&] { resize_map(blank(2, 4), 0, 4); }), {"0 x 4"}));
  EXPECT_TRUE(says(data_error_of([&] { mean_luminance({}); }), {"0 x 0"}));
}

TEST(HalfTest, EveryHalfComesBack) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    auto const half = static_cast<std::uint16_t>(bits);
    float const value = from_half(half);
    if (std::isfinite(value)) { EXPECT_EQ(to_half(value), half); }
  }
}

TEST(HalfTest, RoundsToNearestEvenAndSaturates) {
  EXPECT_EQ(to_half(1.0F), 0x3c00);
  EXPECT_EQ(to_half(-2.0F), 0xc000);
  EXPECT_EQ(to_half(1.0F + 0x1p-11F), 0x3c00);           // a tie, to even
  EXPECT_EQ(to_half(1.0F + 3 * 0x1p-11F), 0x3c02);
  EXPECT_EQ(to_half(1.0F + 0x1p-11F + 0x1p-20F), 0x3c01);
  EXPECT_EQ(to_half(0x1p-25F), 0);                        // half of the smallest subnormal
  EXPECT_EQ(to_half(0x1.8p-24F), 2);
  EXPECT_EQ(to_half(0x1.ffffffp-15F), 0x0400);            // rounds up into the normal ones
  EXPECT_EQ(to_half(65519.0F), 0x7bff);
  EXPECT_EQ(to_half(1e10F), 0x7bff);
  EXPECT_EQ(to_half(-std::numeric_limits<float>::infinity()), 0xfbff);
  EXPECT_TRUE(std::isnan(from_half(to_half(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isinf(from_half(0x7c00)));
}

}  // namespace
}  // namespace duoflow::data::testing
