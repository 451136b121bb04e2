#pragma once
// Pictures in and out. Byte order RGB(A), row 0 at the top.

#include <cstdint>
#include <string>
#include <vector>

namespace duoflow::data {

struct Image8 {
  std::int64_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;  // [H,W,C]
};
struct ImageF {
  std::int64_t height = 0, width = 0;
  std::vector<float> pixels;  // [H,W,3] linear
};

Image8 read_image(std::string const& path);  // PNG or JPEG, 3 or 4 channels kept as stored; DataError naming the file and why
void write_png(std::string const& path, Image8 const& image);  // atomically
// EXR to linear RGB. Negative values (compression ringing) are clamped to 0; a file that is not an EXR, or holds NaN, is a DataError.
ImageF read_exr(std::string const& path);
void write_exr(std::string const& path, ImageF const& image);

// Pillow's Image.resize(LANCZOS), bit for bit (8-bit fixed-point two-pass; RGBA premultiplied as Pillow does).
Image8 resize_lanczos(Image8 const& image, std::int64_t height, std::int64_t width);
Image8 over_white(Image8 const& rgba);  // composited in encoded values, as LVSM's loader does
Image8 crop(Image8 const& image, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width);

// A text label drawn into an image (built-in 8x8 font), for contact sheets. Clipped at the border.
void draw_text(Image8& image, std::int64_t top, std::int64_t left, std::string const& text, int scale = 1);

}  // namespace duoflow::data
