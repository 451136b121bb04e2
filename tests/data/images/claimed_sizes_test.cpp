// Pictures whose headers claim what their bytes cannot hold: refused before memory is taken for it.

#include <gtest/gtest.h>

#include "../sample_folders.h"
#include "data/images/image_io.h"
#include "data/images/picture.h"
#include "tests/fuzz/bytes.h"

namespace duoflow::data::testing {
namespace {

std::string refused_claim(std::string const& bytes) {
  return data_error_of([&] { decode_picture(bytes, "in", ColourRule::assume_srgb); });
}

TEST(ClaimedSizesTest, APngOfMorePixelsThanDeflateCanUnpackIsRefused) {
  auto const png = [](std::uint32_t width, std::uint32_t height) {
    return std::string(fuzz::kPngMark) + fuzz::png_chunk("IHDR", fuzz::png_header(width, height, 16, 6, 0)) +
           fuzz::png_chunk("IDAT", fuzz::stored_zlib("few")) + fuzz::png_chunk("IEND", "");
  };
  EXPECT_TRUE(says(refused_claim(png(16384, 16384)), {"in", "14 compressed bytes cannot hold the picture's 2147500032"}));
  EXPECT_TRUE(says(refused_claim(png(1, 1)), {"hold only 3 bytes, the picture has 9"}));
}

TEST(ClaimedSizesTest, AJpegWithoutABitForEachBlockIsRefused) {
  std::string const sizes = fuzz::big_endian(65500, 2) + fuzz::big_endian(65500, 2);
  std::string const jpeg = std::string("\xff\xd8\xff\xc0\0\x11\x08", 7) + sizes + std::string("\3\1\x11\0\2\x11\0\3\x11\0", 10) +
                           std::string("\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0\xff\xd9", 16);
  EXPECT_TRUE(says(refused_claim(jpeg), {"in", "cannot hold the 65500 x 65500 pixels"}));
}

TEST(ClaimedSizesTest, AnHdrOfMorePixelsThanItsRunsCanHoldIsRefused) {
  std::string const head = "#?RADIANCE\n\n";
  EXPECT_TRUE(says(refused_claim(head + "-Y 16000 +X 16000\nabcd"), {"in", "16000 x 16000 pixels", "4 bytes"}));
  EXPECT_TRUE(says(refused_claim(head + "-Y 1 +X 268435456\nabcd"), {"1 x 268435456 pixels"}));
  EXPECT_TRUE(says(refused_claim(head + "-Y 4611686018427387904 +X 4\nabcd"), {"4611686018427387904 x 4 pixels"}));
}

TEST(ClaimedSizesTest, AnExrOfMorePixelsThanItsBytesIsRefused) {
  TemporaryFolder const folder;
  write_exr(folder / "a.exr", {2, 2, std::vector<float>(12, 1)});
  auto const whole = file_bytes(folder / "a.exr");
  std::string const name("dataWindow\0box2i\0\20\0\0\0", 21);
  for (std::uint32_t const side : {16384U, 65536U, 0x7fffffffU}) {
    auto exr = whole;
    auto const window = exr.find(name);
    ASSERT_NE(window, std::string::npos);
    exr.replace(window + name.size() + 8, 8, fuzz::little_endian(side - 1, 4) + fuzz::little_endian(side - 1, 4));
    EXPECT_TRUE(says(refused_claim(exr), {"in cannot be read as an EXR"})) << side;
  }
}

// Found by the fuzzer: the library took 1.7 GB for it.
TEST(ClaimedSizesTest, AnExrAttributeLargerThanItsFileIsRefused) {
  TemporaryFolder const folder;
  write_exr(folder / "a.exr", {2, 2, std::vector<float>(12, 1)});
  auto exr = file_bytes(folder / "a.exr");
  std::string const name("lineOrder\0lineOrder\0", 20);
  auto const order = exr.find(name);
  ASSERT_NE(order, std::string::npos);
  exr.replace(order, 9, "otherLine");  // of a type that the library knows, and then of one that it keeps as bytes
  exr.replace(order + name.size(), 4, fuzz::little_endian(1768947712, 4));
  EXPECT_TRUE(says(refused_claim(exr), {"in cannot be read as an EXR", "an attribute in its header says 1768947712 bytes"}));
  exr.replace(order + name.size(), 4, fuzz::little_endian(2, 4));  // the library would go on one byte before what was checked
  EXPECT_TRUE(says(refused_claim(exr), {"of type lineOrder in its header says 2 bytes"}));
  exr.replace(order + name.size(), 4, fuzz::little_endian(1768947712, 4));
  exr.replace(order + 10, 9, "otherKind");
  EXPECT_TRUE(says(refused_claim(exr), {"an attribute in its header says 1768947712 bytes"}));
  EXPECT_TRUE(says(refused_claim(exr.substr(0, 40)), {"in cannot be read as an EXR"}));
}

}  // namespace
}  // namespace duoflow::data::testing
