#include "data/synth/lights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "data/environment_map.h"
#include "data/error.h"

namespace duoflow::data {
namespace {

TEST(LightsTest, EveryMapHasTheSameMeanLuminanceAndNoNegativeTexel) {
  for (std::int64_t k = 0; k < 12; ++k) {
    ImageF const map = procedural_light(3, k, 16);
    EXPECT_EQ(map.width, 32);
    EXPECT_NEAR(mean_luminance(map), kMeanLuminance, 1e-3F) << k;
    for (float const value : map.pixels) {
      ASSERT_GE(value, 0.0F);
    }
  }
}

TEST(LightsTest, ALightDependsOnSeedAndIndexAlone) {
  EXPECT_EQ(procedural_light(3, 7, 8).pixels, procedural_light(3, 7, 8).pixels);
  EXPECT_NE(procedural_light(3, 7, 8).pixels, procedural_light(4, 7, 8).pixels);
  EXPECT_NE(procedural_light(3, 7, 8).pixels, procedural_light(3, 9, 8).pixels);
}

TEST(LightsTest, RoundedMapsAreWhatTheHalvesSay) {
  ImageF const map = procedural_light(1, 0, 8), rounded = rounded_to_half(map);
  auto const halves = to_halves(rounded);
  ASSERT_EQ(halves, to_halves(map));
  for (std::size_t i = 0; i < halves.size(); ++i) {
    EXPECT_EQ(from_half(halves[i]), rounded.pixels[i]);
  }
}

TEST(LightsTest, NamesSortInOrder) {
  EXPECT_EQ(light_name(0), "env_000");
  EXPECT_EQ(light_name(42), "env_042");
  EXPECT_EQ(light_name(1234), "env_1234");
}

class FileLightsTest : public testing::Test {
 protected:
  FileLightsTest() : folder_(std::filesystem::path(testing::TempDir()) / "synth_file_lights") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~FileLightsTest() override { std::filesystem::remove_all(folder_); }

  // Bright towards one column only, in one channel.
  void write(std::string const& name, std::size_t channel) const {
    ImageF map{8, 16, std::vector<float>(8 * 16 * 3, 0.25F)};
    map.pixels[(4 * 16 + 3) * 3 + channel] = 40;
    write_exr((folder_ / name).string(), map);
  }
  std::filesystem::path folder_;
};

TEST_F(FileLightsTest, FilesComeInNameOrderThenAgainTurned) {
  write("b.exr", 1);
  write("a.exr", 0);
  auto const lights = file_lights(folder_.string(), 5, 4, 8);
  ASSERT_EQ(lights.size(), 4U);
  std::size_t const bright = (4 * 16 + 3) * 3;
  EXPECT_GT(lights[0].pixels[bright], lights[0].pixels[bright + 1]);
  EXPECT_LT(lights[1].pixels[bright], lights[1].pixels[bright + 1]);
  EXPECT_NE(lights[2].pixels, lights[0].pixels);
  for (auto const& light : lights) {
    EXPECT_NEAR(mean_luminance(light), kMeanLuminance, 1e-3F);
  }
  EXPECT_EQ(lights[2].pixels, file_lights(folder_.string(), 5, 3, 8)[2].pixels);
}

TEST_F(FileLightsTest, ASmallSunIsWidenedAroundItsPlaceKeepingItsColour) {
  ImageF map{16, 32, std::vector<float>(16 * 32 * 3, 0.1F)};
  std::size_t const sun = 8 * 32 + 8;  // towards +Y
  map.pixels[sun * 3] = 900;
  write_exr((folder_ / "sun.exr").string(), map);
  ImageF const light = file_lights(folder_.string(), 0, 1, 16)[0];
  EXPECT_NEAR(light.pixels[(sun - 1) * 3] / light.pixels[sun * 3], 1, 0.3);
  EXPECT_NEAR(light.pixels[0], light.pixels[1], 1e-4F);  // far away nothing was added to any channel
  double red = 0, green = 0;
  for (std::int64_t t = 0; t < 16 * 32; ++t) {
    double const weight = std::sin(3.14159265 * (static_cast<double>(t / 32) + 0.5) / 16);
    red += weight * static_cast<double>(light.pixels[static_cast<std::size_t>(t) * 3]);
    green += weight * static_cast<double>(light.pixels[static_cast<std::size_t>(t) * 3 + 1]);
  }
  double sines = 0;
  for (int row = 0; row < 16; ++row) {
    sines += 32 * std::sin(3.14159265 * (row + 0.5) / 16);
  }
  double const centre = std::sin(3.14159265 * 8.5 / 16);
  EXPECT_NEAR(red / green, (0.1 * sines + 899.9 * centre) / (0.1 * sines), 1.0);  // about 29
}

TEST_F(FileLightsTest, AFolderWithoutMapsIsAnErrorThatNamesIt) {
  try {
    file_lights(folder_.string(), 0, 1, 8);
    FAIL() << "no error";
  } catch (DataError const& error) {
    EXPECT_NE(std::string(error.what()).find(folder_.string()), std::string::npos);
  }
  EXPECT_THROW(file_lights((folder_ / "absent").string(), 0, 1, 8), DataError);
}

}  // namespace
}  // namespace duoflow::data
