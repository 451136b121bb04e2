// Every kind of picture file against what Pillow reads from it, and files that declare other colours.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <limits>
#include <sstream>

#include "../sample_folders.h"
#include "data/images/image_io.h"
#include "data/images/linear_picture.h"
#include "data/images/picture.h"
#include "python.h"

namespace duoflow::data::testing {
namespace {

namespace fs = std::filesystem;

class FormatsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!python_has("PIL, numpy")) { GTEST_SKIP() << "the project's .venv has no Pillow"; }
    ASSERT_EQ(run_python(twin("formats_twin.py") + " " + folder_.path()), "");
  }
  std::vector<std::string> files(std::string const& ending) const {
    std::vector<std::string> out;
    for (std::string const& name : folder_.files()) {
      if (name.ends_with(ending)) { out.push_back(name); }
    }
    return out;
  }
  std::string check(std::string const& name, ColourRule rule = ColourRule::declared) const {
    check_picture(file_bytes(folder_ / name), name, rule);
    return name;
  }
  TemporaryFolder folder_;
};

TEST_F(FormatsTest, PixelsAreThoseThatPillowReads) {
  int compared = 0;
  for (std::string const ending : {".png", ".jpg"}) {
    for (std::string const& name : files(ending)) {
      std::istringstream expected(file_bytes(folder_ / (fs::path(name).stem().string() + ".pixels")));
      std::int64_t height = 0, width = 0, channels = 0;
      expected >> height >> width >> channels;
      expected.ignore();
      std::string const pixels(std::istreambuf_iterator<char>(expected), {});
      auto const image = read_image(folder_ / name);
      EXPECT_EQ(image.height, height) << name;
      EXPECT_EQ(image.width, width) << name;
      EXPECT_EQ(image.channels, channels) << name;
      EXPECT_EQ(std::string(image.pixels.begin(), image.pixels.end()), pixels) << name;
      auto const size = check_image(folder_ / name);
      EXPECT_EQ(std::vector({size.height, size.width, size.channels}), std::vector({height, width, channels})) << name;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 38);
}

TEST_F(FormatsTest, OtherColoursThanSrgbAreRefusedUnlessAssumed) {
  auto const pictures = [&](std::string const& start) {
    std::vector<std::string> out;
    for (std::string const& name : folder_.files()) {
      if (name.starts_with(start)) { out.push_back(name); }
    }
    return out;
  };
  EXPECT_EQ(pictures("ok_").size(), 5U);
  for (std::string const& name : pictures("ok_")) { EXPECT_NO_THROW(check(name)) << name; }
  std::vector<std::pair<std::string, std::string>> const bad{{"bad_linear.PNG", "gAMA chunk says 1.000"},
                                                             {"bad_pq.PNG", "cICP chunk says primaries 9, transfer 16"},
                                                             {"bad_primaries.PNG", "0.680 0.320"},
                                                             {"bad_profile.JPG", "ICC profile is \"Lab"},
                                                             {"bad_profile.PNG", "ICC profile is \"Lab"}};
  EXPECT_EQ(pictures("bad_").size(), bad.size());
  for (auto const& [name, problem] : bad) {
    EXPECT_TRUE(says(data_error_of([&] { check(name); }), {name, "other colours than sRGB", problem})) << name;
    EXPECT_NO_THROW(check(name, ColourRule::assume_srgb)) << name;
  }
  EXPECT_TRUE(says(data_error_of([&] { check("cmyk.jpeg"); }), {"cmyk.jpeg", "CMYK"}));
}

TEST_F(FormatsTest, RadianceRowsOfAllKindsHaveTheirValues) {
  auto const names = files(".hdr");
  ASSERT_EQ(names, (std::vector<std::string>{"flat.hdr", "planes.hdr", "runs.hdr"}));
  for (std::string const& name : names) {
    auto const map = decode_linear(file_bytes(folder_ / name), name).colour;
    ASSERT_EQ(map.height, 2) << name;
    ASSERT_EQ(map.width, 10) << name;
    for (std::size_t i = 0; i < 60; ++i) {  // EXPOSURE=2 halves what is stored
      float const stored = i / 3 % 10 == 9 ? std::array{800.0F, 400.0F, 200.0F}[i % 3] : std::array{1.0F, 0.5F, 0.0F}[i % 3];
      EXPECT_EQ(map.pixels[i], stored / 2) << name << " number " << i;
    }
  }
}

TEST_F(FormatsTest, RadianceCutAnywhereIsNamed) {
  auto const bytes = file_bytes(folder_ / "planes.hdr");
  for (std::size_t length = 2; length < bytes.size(); ++length) {
    auto const message = data_error_of([&] { decode_linear(bytes.substr(0, length), "map.hdr"); });
    EXPECT_TRUE(says(message, {"map.hdr"})) << length;
  }
}

TEST_F(FormatsTest, DamagedJpegsAreFoundWhereTheLibraryWouldFillWithGrey) {
  auto bytes = file_bytes(folder_ / "jpeg444.jpg");
  auto const scan = bytes.find("\xff\xda");
  bytes.erase(scan + 200, 60);
  EXPECT_TRUE(says(data_error_of([&] { check_picture(bytes, "hurt.jpg", ColourRule::declared); }), {"hurt.jpg", "damaged"}));
}

TEST(LinearPictureTest, ToneMappingClipsAndEncodesTheColourOverItsAlpha) {
  // alpha 1/2 over 1/4 is 1/2; beyond 1 is white; no cover is black and clear
  LinearPicture const picture{{1, 4, {0.25F, 0.125F, 0, 7, 1, -1, 0, 0, 0, 0.5F, 0.5F, 0.5F}}, {0.5F, 1, 0, 1}, ""};
  auto const half = static_cast<std::uint8_t>(std::lround(255 * std::pow(0.5, 1 / 2.2)));
  auto const quarter = static_cast<std::uint8_t>(std::lround(255 * std::pow(0.25, 1 / 2.2)));
  EXPECT_EQ(tone_mapped(picture).pixels, (std::vector<std::uint8_t>{half, quarter, 0, 128, 255, 255, 0, 255, 0, 0, 0, 0, half, half, half, 255}));
  LinearPicture const opaque{{1, 1, {0.25F, 1, 0}}, {}, ""};
  EXPECT_EQ(tone_mapped(opaque).pixels, (std::vector<std::uint8_t>{quarter, 255, 0}));
  LinearPicture const spoilt{{1, 2, {1, 1, 1, 1, std::numeric_limits<float>::quiet_NaN(), 1}}, {}, ""};
  EXPECT_TRUE(says(data_error_of([&] { tone_mapped(spoilt); }), {"row 0, column 1 is not a number"}));
}

TEST(LinearPictureTest, RepairsAreCountedByKind) {
  float const nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  ImageF map{1, 3, {-3894, nan, 1, 65504, 65505, infinity, -infinity, 0, -0.0F}};
  auto const found = repair(map);
  EXPECT_EQ(map.pixels, (std::vector<float>{0, 0, 1, 65504, 65504, 65504, 0, 0, 0}));
  EXPECT_EQ(found.text(), "2 negative became 0, 1 NaN became 0, 2 above 65504 became 65504");
  EXPECT_EQ(repair(map).text(), "");
}

TEST(LinearPictureTest, AnExrOfAPictureIsReadLikeItsPng) {
  TemporaryFolder const folder;
  write_exr(folder / "a.exr", {1, 2, {0, 0.5F, 1, 2, 0.25F, 0.125F}});
  auto const image = decode_picture(file_bytes(folder / "a.exr"), "a.exr", ColourRule::declared);
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.pixels, tone_mapped({{1, 2, {0, 0.5F, 1, 2, 0.25F, 0.125F}}, {}, ""}).pixels);
}

}  // namespace
}  // namespace duoflow::data::testing
