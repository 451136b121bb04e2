#include <gtest/gtest.h>

#include <sstream>

#include "../sample_folders.h"
#include "data/images/image_io.h"
#include "python.h"

namespace duoflow::data::testing {
namespace {

std::uint32_t crc32(std::vector<std::uint8_t> const& bytes) {
  std::uint32_t value = ~0U;
  for (auto const byte : bytes) {
    value ^= byte;
    for (int bit = 0; bit < 8; ++bit) { value = (value & 1U) != 0 ? 0xedb88320U ^ (value >> 1) : value >> 1; }
  }
  return ~value;
}

Image8 picture(std::int64_t height, std::int64_t width, std::int64_t channels) {  // the twin's
  Image8 image{height, width, channels, {}};
  auto state = static_cast<std::uint64_t>(height * 1009 + width * 31 + channels);
  for (std::int64_t i = 0; i < height * width * channels; ++i) {
    state = (1103515245 * state + 12345) & 0x7fffffffU;
    auto byte = static_cast<std::uint8_t>(state >> 16 & 255U);
    if (channels == 4 && i % 4 == 3) { byte = byte < 80 ? 0 : byte > 170 ? 255 : byte; }
    image.pixels.push_back(byte);
  }
  return image;
}

TEST(LanczosTest, EqualsPillowBitForBit) {
  std::istringstream lines(file_bytes(twin("lanczos_golden.txt")));
  int checked = 0;
  std::int64_t channels = 0, height = 0, width = 0, new_height = 0, new_width = 0;
  for (std::uint32_t expected = 0; lines >> channels >> height >> width >> new_height >> new_width >> expected; ++checked) {
    auto const resized = resize_lanczos(picture(height, width, channels), new_height, new_width);
    EXPECT_EQ(crc32(resized.pixels), expected) << channels << " channels, " << height << " x " << width << " to " << new_height << " x " << new_width;
  }
  EXPECT_EQ(checked, 78);
}

TEST(LanczosTest, GoldenIsWhatThisPillowGives) {
  if (!python_has("PIL")) { GTEST_SKIP() << "the project's .venv has no Pillow"; }
  auto const version = run_python("-c 'import PIL; print(PIL.__version__)'");
  if (std::stoi(version) < 13) { GTEST_SKIP() << "Pillow " << version << " orders the passes otherwise"; }
  EXPECT_EQ(run_python(twin("lanczos_twin.py")), file_bytes(twin("lanczos_golden.txt")));
}

TEST(LanczosTest, ConstantPictureStaysConstant) {
  Image8 const grey{5, 7, 3, std::vector<std::uint8_t>(105, 77)};
  for (auto const value : resize_lanczos(grey, 13, 3).pixels) { EXPECT_EQ(value, 77); }
}

TEST(LanczosTest, EmptySizesAreErrors) {
  EXPECT_TRUE(says(data_error_of([] { resize_lanczos(Image8{2, 2, 3, std::vector<std::uint8_t>(12)}, 0, 4); }), {"2 x 2 to 0 x 4"}));
  EXPECT_TRUE(says(data_error_of([] { resize_lanczos(Image8{}, 4, 4); }), {"0 x 0 to 4 x 4"}));
}

}  // namespace
}  // namespace duoflow::data::testing
