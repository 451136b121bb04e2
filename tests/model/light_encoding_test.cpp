#include "model/light_encoding.h"

#include <array>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow::model {
namespace {

at::Tensor identity() { return at::eye(4, at::kFloat).unsqueeze(0); }

at::Tensor one_hot(float value) {  // 2 x 4 map, pixel (0,1), green
  at::Tensor map = at::zeros({1, 2, 4, 3});
  map[0][0][1][1] = value;
  return map;
}

double at_pixel(at::Tensor const& encoded, std::int64_t channel, std::int64_t row, std::int64_t column) {
  return encoded[0][0][channel][row][column].item<double>();
}

TEST(LightEncodingTest, LvsmOfOneBrightPixel) {
  at::Tensor const encoded = encode_light(one_hot(0.5F), identity(), LightEncoding::lvsm);
  ASSERT_EQ(encoded.sizes(), at::IntArrayRef({1, 1, 9, 2, 4}));
  EXPECT_NEAR(at_pixel(encoded, 1, 0, 1), std::pow(0.5, 1 / 2.2), 1e-6);
  EXPECT_NEAR(at_pixel(encoded, 4, 0, 1), 1, 1e-6);  // it is the map's maximum
  EXPECT_NEAR(encoded.narrow(2, 0, 6).sum().item<double>(), std::pow(0.5, 1 / 2.2) + 1, 1e-6);
  EXPECT_NEAR(at_pixel(encode_light(one_hot(7), identity(), LightEncoding::lvsm), 1, 0, 1), 1, 1e-6);  // LDR clips
}

TEST(LightEncodingTest, LvsmNormalisesEveryMapByItsOwnMaximum) {
  at::Tensor const maps = at::cat({one_hot(1), at::full({1, 2, 4, 3}, 3.0)});
  at::Tensor const encoded = encode_light(maps, identity().expand({2, 4, 4}), LightEncoding::lvsm);
  EXPECT_NEAR(encoded[0][0][4][0][1].item<double>(), 1, 1e-6);
  EXPECT_NEAR(encoded[1][0].narrow(0, 3, 3).min().item<double>(), 1, 1e-6);
}

TEST(LightEncodingTest, BlackAndNegativePixelsStayFinite) {
  for (auto const encoding : {LightEncoding::lvsm, LightEncoding::cosmos, LightEncoding::raw}) {
    at::Tensor const encoded = encode_light(one_hot(-2), identity(), encoding);
    EXPECT_EQ(encoded.narrow(2, 0, 6).abs().max().item<double>(), 0);
  }
}

TEST(LightEncodingTest, CosmosKeepsTheExposure) {
  at::Tensor const encoded = encode_light(one_hot(3), identity(), LightEncoding::cosmos);
  auto const srgb = [](double x) { return 1.055 * std::pow(x, 1 / 2.4) - 0.055; };
  EXPECT_NEAR(at_pixel(encoded, 1, 0, 1), srgb(3 * (1 + 3 / 256.0) / 4), 1e-6);
  EXPECT_NEAR(at_pixel(encoded, 4, 0, 1), srgb(std::log1p(3) / std::log1p(10000)), 1e-6);
}

TEST(LightEncodingTest, RawIsRadianceAndItsLogarithm) {
  at::Tensor const encoded = encode_light(one_hot(40), identity(), LightEncoding::raw);
  EXPECT_NEAR(at_pixel(encoded, 1, 0, 1), 40, 1e-4);
  EXPECT_NEAR(at_pixel(encoded, 4, 0, 1), std::log1p(40.0), 1e-6);
}

TEST(LightEncodingTest, DirectionsFollowTheMapConvention) {
  // pixel (0,1) of 2 x 4: theta = pi/4, phi = pi - 3 pi/4 = pi/4
  double const s = std::sqrt(0.5);
  at::Tensor const encoded = encode_light(one_hot(1), identity(), LightEncoding::lvsm);
  std::array<double, 3> const expected{s * s, s * s, s};
  for (std::int64_t i = 0; i < 3; ++i) EXPECT_NEAR(at_pixel(encoded, 6 + i, 0, 1), expected[static_cast<std::size_t>(i)], 1e-6);
}

TEST(LightEncodingTest, DirectionsTurnWithTheSceneAndIgnoreScaleAndShift) {
  // world x -> normalised y, y -> z, z -> x, scaled by 0.3 and moved
  at::Tensor const pose = at::tensor({0.F, 0.F, 0.3F, 5.F, 0.3F, 0.F, 0.F, 6.F, 0.F, 0.3F, 0.F, 7.F, 0.F, 0.F, 0.F, 1.F}).view({1, 4, 4});
  at::Tensor const straight = encode_light(one_hot(1), identity(), LightEncoding::lvsm).narrow(2, 6, 3);
  at::Tensor const turned = encode_light(one_hot(1), pose, LightEncoding::lvsm).narrow(2, 6, 3);
  EXPECT_LT((turned - straight.roll({1}, {2})).abs().max().item<double>(), 1e-6);
}

TEST(LightEncodingTest, UnknownNameIsAnErrorThatListsTheNames) {
  EXPECT_EQ(light_encoding_from_string("cosmos"), LightEncoding::cosmos);
  try {
    light_encoding_from_string("hdr");
    FAIL() << "expected an error";
  } catch (std::invalid_argument const& error) {
    EXPECT_NE(std::string(error.what()).find("lvsm, cosmos, raw"), std::string::npos);
  }
}

}  // namespace
}  // namespace duoflow::model
