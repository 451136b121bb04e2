#include "data/synth/lights.h"

#include <gtest/gtest.h>

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
