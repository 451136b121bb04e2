#include "data/tools/float_rows.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(FloatRowsTest, EverySixteenBitPatternComesBackAsItWas) {
  for (auto const dtype : {DType::bf16, DType::f16}) {
    std::uint32_t const exponent = dtype == DType::bf16 ? 0x7f80 : 0x7c00;
    std::vector<std::uint16_t> patterns;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits)
      if ((bits & exponent) != exponent) patterns.push_back(static_cast<std::uint16_t>(bits));  // finite
    auto const wide = widen(dtype, reinterpret_cast<std::byte const*>(patterns.data()), patterns.size());
    auto const back = narrow(dtype, wide, "test");
    ASSERT_EQ(back.size(), 2 * patterns.size());
    EXPECT_EQ(std::memcmp(back.data(), patterns.data(), back.size()), 0) << to_string(dtype);
  }
}

TEST(FloatRowsTest, Bfloat16RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(to_bf16(1.0F), 0x3f80);
  EXPECT_EQ(to_bf16(1 + 0x1p-8F), 0x3f80);             // halfway: to the even 1
  EXPECT_EQ(to_bf16(1 + 0x1p-8F + 0x1p-23F), 0x3f81);  // just above
  EXPECT_EQ(to_bf16(1 + 3 * 0x1p-8F), 0x3f82);         // halfway: to the even 1 + 2^-6
  EXPECT_EQ(to_bf16(-1 - 0x1p-8F), 0xbf80);
  EXPECT_EQ(to_bf16(0x1p-133F), 0x0001);  // the smallest
  EXPECT_EQ(to_bf16(0x1p-134F), 0x0000);  // its half: to the even 0
  EXPECT_EQ(to_bf16(-0.0F), 0x8000);
  EXPECT_EQ(from_bf16(to_bf16(kInfinity)), kInfinity);
  EXPECT_TRUE(std::isnan(from_bf16(to_bf16(std::bit_cast<float>(0x7f800001U)))));
}

TEST(FloatRowsTest, WhatDoesNotFitIsNamed) {
  EXPECT_TRUE(says(data_error_of([] {
                     narrow(DType::f32, {1, 2, kInfinity}, "a.h5: latents row 7");
                   }),
                   {"a.h5: latents row 7 number 2 is inf"}));
  EXPECT_TRUE(says(data_error_of([] { narrow(DType::bf16, {std::nanf("")}, "x"); }), {"x number 0 is nan"}));
  EXPECT_TRUE(says(data_error_of([] { narrow(DType::f16, {0, -65520}, "x"); }), {"number 1 is -65520", "largest f16"}));
  EXPECT_TRUE(
      says(data_error_of([] { narrow(DType::bf16, {std::numeric_limits<float>::max()}, "x"); }), {"largest bf16"}));
  std::uint16_t half = 0;
  std::memcpy(&half, narrow(DType::f16, {65519.996F}, "x").data(), 2);
  EXPECT_EQ(half, 0x7bff);  // 65504
}

TEST(FloatRowsTest, StatisticsKeepTheirDigitsFarFromZero) {
  LatentStatistics statistics(2);
  EXPECT_TRUE(statistics.mean().empty());
  statistics.add({1e4F, 5, 1e4F + 1, 5});
  statistics.add({1e4F + 2, 5, 1e4F + 3, 5});
  EXPECT_EQ(statistics.mean(), (std::vector<float>{1e4F + 1.5F, 5}));
  EXPECT_FLOAT_EQ(statistics.deviation()[0], std::sqrt(1.25F));
  EXPECT_FLOAT_EQ(statistics.deviation()[1], 1e-6F);
}

}  // namespace
}  // namespace duoflow::data::testing
