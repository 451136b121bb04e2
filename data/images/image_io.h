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

// PNG or JPEG, 3 or 4 channels kept as stored (grey becomes 3, grey with alpha 4, a palette its colours; 16-bit samples lose
// their low byte). The bytes are Pillow's. DataError naming the file and why: another format, cut short, altered (PNG checksums
// are verified).
Image8 read_image(std::string const& path);
struct ImageSize {
  std::int64_t height = 0, width = 0, channels = 0;  // channels as read_image would return them
};
// Every check of read_image that needs no decoding.
ImageSize check_image(std::string const& path);
void write_png(std::string const& path, Image8 const& image);  // 1 to 4 channels, atomically
// EXR (any compression, R G B or Y) or Radiance HDR to linear RGB. Negative values (compression ringing) are clamped to 0 and infinity (a
// saturated half) becomes 65504; another format, or NaN, is a DataError.
ImageF read_exr(std::string const& path);
void write_exr(std::string const& path, ImageF const& image);  // 32-bit floats, lossless, atomically

// Pillow 13's Image.resize(LANCZOS), bit for bit (8-bit fixed-point two-pass; RGBA premultiplied as Pillow does). Earlier versions
// give the same bits unless the height loses more than twice as many pixels as the width.
Image8 resize_lanczos(Image8 const& image, std::int64_t height, std::int64_t width);
// Composited in encoded values, as LVSM's loader does, to the nearest of 256 steps. A picture of 3 channels comes back as it is.
Image8 over_white(Image8 const& rgba);
Image8 crop(Image8 const& image, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width);

// A text label drawn into an image, for contact sheets: white glyphs of 5 x 7 on black cells of 8 x 8 pixels, both times
// `scale`. Printable ASCII; other bytes show as '?'. Clipped at the border.
void draw_text(Image8& image, std::int64_t top, std::int64_t left, std::string const& text, int scale = 1);

}  // namespace duoflow::data
