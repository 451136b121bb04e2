#include <gtest/gtest.h>

#include <set>

#include "data/images/image_io.h"

namespace duoflow::data::testing {
namespace {

Image8 grey(std::int64_t height, std::int64_t width, std::int64_t channels = 3) {
  return {height, width, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * channels), 90)};
}

TEST(DrawTextTest, LetterIsDrawnWhiteOnItsBlackCellOnly) {
  auto image = grey(12, 12);
  draw_text(image, 2, 3, "T");
  std::string picture;
  for (std::size_t i = 0; i < 144; ++i) {
    picture += image.pixels[3 * i] == 90 ? '.' : image.pixels[3 * i] == 255 ? '#' : ' ';
    if (i % 12 == 11) { picture += '\n'; }
  }
  EXPECT_EQ(picture,
            "............\n............\n"
            "...        .\n"
            "... #####  .\n"
            "...   #    .\n"
            "...   #    .\n"
            "...   #    .\n"
            "...   #    .\n"
            "...   #    .\n"
            "...   #    .\n"
            "............\n............\n");
}

TEST(DrawTextTest, EveryPrintableCharacterLooksDifferent) {
  std::set<std::vector<std::uint8_t>> seen;
  for (char c = ' '; c <= '~'; ++c) {
    auto image = grey(8, 8);
    draw_text(image, 0, 0, std::string(1, c));
    EXPECT_TRUE(seen.insert(image.pixels).second) << c;
  }
  auto image = grey(8, 8);
  draw_text(image, 0, 0, "\x01");
  EXPECT_FALSE(seen.insert(image.pixels).second) << "shown as a question mark";
}

TEST(DrawTextTest, ScaleRepeatsPixels) {
  auto small = grey(8, 16), large = grey(24, 48);
  draw_text(small, 0, 0, "k9");
  draw_text(large, 0, 0, "k9", 3);
  for (std::size_t i = 0; i < large.pixels.size(); ++i) {
    std::size_t const row = i / 144 / 3, column = i / 3 % 48 / 3;
    EXPECT_EQ(large.pixels[i], small.pixels[(row * 16 + column) * 3]);
  }
}

TEST(DrawTextTest, ClippedAtEveryBorder) {
  for (std::int64_t const top : {-20, -4, 3, 20}) {
    for (std::int64_t const left : {-40, -4, 3, 20}) {
      auto image = grey(7, 5, 4);
      draw_text(image, top, left, "clip", 2);
      EXPECT_EQ(image.pixels.size(), 140U);
    }
  }
}

}  // namespace
}  // namespace duoflow::data::testing
