#include "data/synth/lights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "data/images/environment_map.h"
#include "data/synth/light_kinds.h"
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

TEST(LightsTest, KindsTakeTurnsAndEveryKindHasTheMeanLuminance) {
  std::vector<LightKind> const all{LightKind::sky, LightKind::area, LightKind::sun_sky, LightKind::studio};
  for (LightKind const kind : all) {
    EXPECT_EQ(light_kind(to_string(kind)), kind);
    EXPECT_NEAR(mean_luminance(procedural_light(2, 5, 16, {kind})), kMeanLuminance, 1e-3F) << to_string(kind);
  }
  int same = 0;
  for (std::int64_t l = 0; l < 4; ++l) {
    for (LightKind const kind : all) { same += procedural_light(2, l, 8, all).pixels == procedural_light(2, l, 8, {kind}).pixels ? 1 : 0; }
  }
  EXPECT_EQ(same, 4);
  EXPECT_THROW(light_kind("moon"), DataError);
}

float degrees(float angle) { return angle * 3.14159265F / 180; }
float luminance_of(Vec3 c) { return 0.2126F * c.x + 0.7152F * c.y + 0.0722F * c.z; }

// Clear noon: about 100 klx of sun and sky on level ground, a sky several times darker than that and blue at the zenith (CIE and
// IES tables put it at 60 to 120 klx for such heights).
TEST(SunSkyTest, IlluminanceAndColoursAreThoseOfDaylight) {
  SunSky const noon = sun_sky(degrees(60), 0, 2.5F, {0.2F, 0.2F, 0.2F});
  Vec3 const zenith = noon.sky({0, 0, 1});
  EXPECT_GT(zenith.z, 1.5F * zenith.x);
  float sky_lux = 0;
  for (int i = 0; i < 64 * 64; ++i) {
    float const z = std::sqrt((static_cast<float>(i / 64) + 0.5F) / 64), phi = (static_cast<float>(i % 64) + 0.5F) / 64 * degrees(360);
    sky_lux += luminance_of(noon.sky({std::sqrt(1 - z * z) * std::cos(phi), std::sqrt(1 - z * z) * std::sin(phi), z})) * degrees(180) / (64 * 64);
  }
  float const sun_lux = luminance_of(noon.sun_irradiance) * noon.sun.z;
  std::printf("level ground: %.1f klx of sun, %.1f klx of sky\n", static_cast<double>(sun_lux), static_cast<double>(sky_lux));
  EXPECT_NEAR(sun_lux + sky_lux, 95, 30);
  EXPECT_GT(sun_lux, 2 * sky_lux);

  SunSky const evening = sun_sky(degrees(6), 0, 2.5F, {0.2F, 0.2F, 0.2F});
  EXPECT_GT(evening.sun_irradiance.x / evening.sun_irradiance.z, 3 * noon.sun_irradiance.x / noon.sun_irradiance.z);
  EXPECT_LT(luminance_of(evening.sun_irradiance), 0.6F * luminance_of(noon.sun_irradiance));
  SunSky const haze = sun_sky(degrees(60), 0, 8, {0.2F, 0.2F, 0.2F});
  EXPECT_LT(luminance_of(haze.sun_irradiance), luminance_of(noon.sun_irradiance));
  Vec3 const pale = haze.sky({0, 0, 1});
  EXPECT_LT(pale.z / pale.x, zenith.z / zenith.x);  // haze is whiter
}

TEST(SunSkyTest, TheSkyIsBrightestAroundTheSunAndFiniteEverywhere) {
  SunSky const day = sun_sky(degrees(35), degrees(90), 3, {0.2F, 0.2F, 0.2F});
  float const beside = luminance_of(day.sky(from_angles(degrees(37), degrees(92))));
  for (int i = 0; i < 500; ++i) {
    KeyedRandom random(static_cast<std::uint64_t>(i));
    Vec3 const sky = day.sky(random.direction());
    EXPECT_TRUE(std::isfinite(luminance_of(sky)) && std::min({sky.x, sky.y, sky.z}) >= 0);
    EXPECT_LT(luminance_of(sky), 1.2F * beside);
  }
}

TEST(SunSkyTest, TheSunsShareOfAMapDoesNotDependOnTheMapsSize) {
  for (std::int64_t k = 0; k < 3; ++k) {
    double shares[2];
    for (int size = 0; size < 2; ++size) {
      std::int64_t const height = size == 0 ? 16 : 64;
      ImageF const map = procedural_light(9, k, height, {LightKind::sun_sky});
      std::vector<double> powers;  // green, by texel
      double all = 0;
      for (std::int64_t t = 0; t < 2 * height * height; ++t) {
        powers.push_back(static_cast<double>(map.pixels[static_cast<std::size_t>(t * 3 + 1)] * texel_solid_angle(height, t / (2 * height))));
        all += powers.back();
      }
      std::sort(powers.rbegin(), powers.rend());
      shares[size] = (powers[0] + powers[1] + powers[2] + powers[3]) / all;  // the disc touches four texels at most
    }
    EXPECT_NEAR(shares[0], shares[1], 0.06) << k;  // the larger texels hold some sky too
    EXPECT_GT(shares[1], 0.2) << k;
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

TEST_F(FileLightsTest, WithoutSofteningASmallSunStaysWhatItIs) {
  ImageF map{16, 32, std::vector<float>(16 * 32 * 3, 0.1F)};
  for (std::size_t c = 0; c < 3; ++c) { map.pixels[(8 * 32 + 8) * 3 + c] = 900; }
  write_exr((folder_ / "sun.exr").string(), map);
  ImageF const light = file_lights(folder_.string(), 0, 1, 16, 0)[0];
  EXPECT_NEAR(light.pixels[(8 * 32 + 8) * 3] / light.pixels[0], 9000, 1);
  EXPECT_EQ(light.pixels[(8 * 32 + 7) * 3], light.pixels[0]);
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
