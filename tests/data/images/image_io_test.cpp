#include "data/images/image_io.h"

#include <gtest/gtest.h>

#include "../sample_folders.h"
#include "python.h"

namespace duoflow::data::testing {
namespace {

Image8 pattern(std::int64_t height, std::int64_t width, std::int64_t channels) {
  Image8 image{height, width, channels, {}};
  for (std::int64_t i = 0; i < height * width * channels; ++i) { image.pixels.push_back(sample_byte(9, static_cast<std::uint64_t>(i))); }
  return image;
}

TEST(ImageIoTest, PngComesBackAsWritten) {
  TemporaryFolder const folder;
  for (std::int64_t const channels : {3, 4}) {
    for (auto const& [height, width] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 5}, {64, 33}}) {
      auto const image = pattern(height, width, channels);
      write_png(folder / "a.png", image);
      auto const back = read_image(folder / "a.png");
      EXPECT_EQ(back.height, height);
      EXPECT_EQ(back.width, width);
      EXPECT_EQ(back.channels, channels);
      EXPECT_EQ(back.pixels, image.pixels);
      auto const size = check_image(folder / "a.png");
      EXPECT_EQ(size.height, height);
      EXPECT_EQ(size.width, width);
      EXPECT_EQ(size.channels, channels);
    }
  }
  EXPECT_EQ(folder.files(), std::vector<std::string>{"a.png"}) << "no temporary file stays";
}

TEST(ImageIoTest, GreyBecomesThreeChannels) {
  TemporaryFolder const folder;
  write_png(folder / "grey.png", pattern(2, 3, 1));
  write_png(folder / "grey_alpha.png", pattern(2, 3, 2));
  auto const grey = read_image(folder / "grey.png"), with_alpha = read_image(folder / "grey_alpha.png");
  ASSERT_EQ(grey.channels, 3);
  ASSERT_EQ(with_alpha.channels, 4);
  EXPECT_EQ(check_image(folder / "grey.png").channels, 3);
  for (std::size_t i = 0; i < 18; ++i) { EXPECT_EQ(grey.pixels[i], sample_byte(9, i / 3)); }
  for (std::size_t i = 0; i < 24; ++i) { EXPECT_EQ(with_alpha.pixels[i], sample_byte(9, i / 4 * 2 + (i % 4 == 3 ? 1 : 0))); }
}

TEST(ImageIoTest, TruncatedPngIsNamedAtEveryLength) {
  TemporaryFolder const folder;
  write_png(folder / "a.png", pattern(6, 6, 3));
  auto const bytes = file_bytes(folder / "a.png");
  for (std::size_t const length : {std::size_t{8}, std::size_t{20}, std::size_t{33}, bytes.size() / 2, bytes.size() - 12, bytes.size() - 1}) {
    put_bytes(folder / "cut.png", bytes.substr(0, length));
    EXPECT_TRUE(says(data_error_of([&] { read_image(folder / "cut.png"); }), {"cut.png", "cut short"})) << length;
    EXPECT_TRUE(says(data_error_of([&] { check_image(folder / "cut.png"); }), {"cut.png", "cut short"})) << length;
  }
}

TEST(ImageIoTest, AnyFlippedByteOfAPngIsFound) {
  TemporaryFolder const folder;
  write_png(folder / "a.png", pattern(6, 6, 3));
  auto const bytes = file_bytes(folder / "a.png");
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    auto hurt = bytes;
    hurt[at] = static_cast<char>(hurt[at] ^ 1);
    put_bytes(folder / "hurt.png", hurt);
    EXPECT_TRUE(says(data_error_of([&] { check_image(folder / "hurt.png"); }), {"hurt.png"})) << at;
  }
}

TEST(ImageIoTest, OtherFormatsAreNamed) {
  TemporaryFolder const folder;
  put_bytes(folder / "a.png", "hello");
  put_bytes(folder / "empty.png", "");
  write_exr(folder / "map.png", {1, 1, {1, 2, 3}});
  EXPECT_TRUE(says(data_error_of([&] { read_image(folder / "a.png"); }), {"a.png", "no known picture format"}));
  EXPECT_TRUE(says(data_error_of([&] { read_image(folder / "empty.png"); }), {"empty.png", "empty"}));
  EXPECT_TRUE(says(data_error_of([&] { read_image(folder / "map.png"); }), {"map.png is an EXR"}));
  EXPECT_TRUE(says(data_error_of([&] { read_image(folder / "none.png"); }), {"none.png"}));
}

TEST(ImageIoTest, JpegOfPillowIsReadAndItsCutFound) {
  if (!python_has("PIL")) { GTEST_SKIP() << "the project's .venv has no Pillow"; }
  TemporaryFolder const folder;
  auto const said = run_python("-c \"from PIL import Image; Image.new('RGB', (20, 10), (200, 100, 50)).save('" + (folder / "a.jpg") + "', quality=95)\"");
  ASSERT_EQ(said, "");
  auto const image = read_image(folder / "a.jpg");
  ASSERT_EQ(image.height, 10);
  ASSERT_EQ(image.width, 20);
  ASSERT_EQ(image.channels, 3);
  for (std::size_t i = 0; i < image.pixels.size(); ++i) { EXPECT_NEAR(image.pixels[i], i % 3 == 0 ? 200 : i % 3 == 1 ? 100 : 50, 2); }
  auto const bytes = file_bytes(folder / "a.jpg");
  put_bytes(folder / "cut.jpg", bytes.substr(0, bytes.size() - 20));
  EXPECT_TRUE(says(data_error_of([&] { read_image(folder / "cut.jpg"); }), {"cut.jpg", "cut short"}));
}

TEST(ImageIoTest, OverWhiteBlendsEncodedValues) {
  Image8 const rgba{1, 4, 4, {10, 20, 30, 255, 10, 20, 30, 0, 0, 100, 255, 51, 0, 0, 0, 128}};
  // 0.2 * c + 0.8 * 255, and 127/255 of white
  EXPECT_EQ(over_white(rgba).pixels, (std::vector<std::uint8_t>{10, 20, 30, 255, 255, 255, 204, 224, 255, 127, 127, 127}));
  auto const rgb = pattern(2, 2, 3);
  EXPECT_EQ(over_white(rgb).pixels, rgb.pixels);
}

TEST(ImageIoTest, CropTakesTheWindowAndRefusesOthers) {
  auto const image = pattern(5, 6, 4);
  auto const part = crop(image, 1, 2, 3, 4);
  ASSERT_EQ(part.pixels.size(), 48U);
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t x = 0; x < 16; ++x) { EXPECT_EQ(part.pixels[16 * row + x], image.pixels[24 * (row + 1) + 8 + x]); }
  }
  EXPECT_TRUE(says(data_error_of([&] { crop(image, 3, 0, 3, 6); }), {"3 x 6", "5 x 6"}));
}

}  // namespace
}  // namespace duoflow::data::testing
