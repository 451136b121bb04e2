#include <gtest/gtest.h>

#include <limits>

#include "../sample_folders.h"
#include "data/images/image_io.h"

namespace duoflow::data::testing {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(ExrIoTest, FloatsComeBackExactly) {
  TemporaryFolder const folder;
  ImageF map{3, 5, {}};
  for (int i = 0; i < 45; ++i) { map.pixels.push_back(0.1F * static_cast<float>(i * i)); }
  map.pixels[7] = 1e6F;  // beyond half
  write_exr(folder / "a.exr", map);
  auto const back = read_exr(folder / "a.exr");
  EXPECT_EQ(back.height, 3);
  EXPECT_EQ(back.width, 5);
  EXPECT_EQ(back.pixels, map.pixels);
  EXPECT_EQ(folder.files(), std::vector<std::string>{"a.exr"});
}

TEST(ExrIoTest, NegativeBecomesZeroAndInfinityTheLargestHalf) {
  TemporaryFolder const folder;
  write_exr(folder / "a.exr", {1, 2, {-3894, -0.0F, 2, kInfinity, -kInfinity, 1}});
  EXPECT_EQ(read_exr(folder / "a.exr").pixels, (std::vector<float>{0, 0, 2, 65504, 0, 1}));
}

TEST(ExrIoTest, NotANumberIsAnError) {
  TemporaryFolder const folder;
  write_exr(folder / "nan.exr", {1, 1, {1, std::numeric_limits<float>::quiet_NaN(), 1}});
  EXPECT_TRUE(says(data_error_of([&] { read_exr(folder / "nan.exr"); }), {"nan.exr", "not a number"}));
}

TEST(ExrIoTest, OtherFormatsAndCutFilesAreNamed) {
  TemporaryFolder const folder;
  write_png(folder / "x.exr", {1, 1, 3, {1, 2, 3}});
  EXPECT_TRUE(says(data_error_of([&] { read_exr(folder / "x.exr"); }), {"x.exr is a PNG"}));
  write_exr(folder / "a.exr", {40, 40, std::vector<float>(4800, 1.5F)});
  auto const bytes = file_bytes(folder / "a.exr");
  for (std::size_t const length : {std::size_t{0}, std::size_t{4}, std::size_t{100}, bytes.size() - 10}) {
    put_bytes(folder / "cut.exr", bytes.substr(0, length));
    EXPECT_TRUE(says(data_error_of([&] { read_exr(folder / "cut.exr"); }), {"cut.exr"})) << length;
  }
}

}  // namespace
}  // namespace duoflow::data::testing
