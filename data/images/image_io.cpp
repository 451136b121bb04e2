#include "data/images/image_io.h"

#include <cstddef>
#include <string>

#include <fmt/format.h>

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

#include "data/error.h"
#include "data/file.h"
#include "data/images/picture.h"

namespace duoflow::data {
namespace {

void append(void* text, void* bytes, int count) {
  static_cast<std::string*>(text)->append(static_cast<char const*>(bytes), static_cast<std::size_t>(count));
}

void check(Image8 const& image) {
  if (image.height <= 0 || image.width <= 0 || image.channels < 1 || image.channels > 4 ||
      image.pixels.size() != static_cast<std::size_t>(image.height * image.width * image.channels)) {
    throw DataError(fmt::format("a picture of {} x {} x {} has {} bytes (sizes must be positive and agree), pass a whole picture", image.height,
                                image.width, image.channels, image.pixels.size()));
  }
}

}  // namespace

ImageSize check_image(std::string const& path) {
  std::string const bytes = read_text(path);
  return check_encoded(bytes, path);
}

Image8 read_image(std::string const& path) { return decode_encoded(read_text(path), path); }

void write_png(std::string const& path, Image8 const& image) {
  check(image);
  std::string bytes;
  int const channels = static_cast<int>(image.channels), width = static_cast<int>(image.width);
  if (stbi_write_png_to_func(append, &bytes, width, static_cast<int>(image.height), channels, image.pixels.data(), width * channels) == 0) {
    throw DataError(fmt::format("{} cannot be encoded ({} x {} x {} does not fit memory), make it smaller", path, image.height, image.width, channels));
  }
  write_atomically(path, bytes);
}

Image8 over_white(Image8 const& rgba) {
  if (rgba.channels == 3) { return rgba; }
  check(rgba);
  if (rgba.channels != 4) { throw DataError(fmt::format("a picture of {} channels has no alpha (4 are needed), pass RGBA", rgba.channels)); }
  Image8 out{rgba.height, rgba.width, 3, {}};
  out.pixels.resize(static_cast<std::size_t>(rgba.height * rgba.width * 3));
  for (std::size_t i = 0; i < out.pixels.size() / 3; ++i) {
    unsigned const alpha = rgba.pixels[4 * i + 3];
    for (std::size_t c = 0; c < 3; ++c) {
      // colour * alpha + 255 (1 - alpha), rounded to the nearest of 255 steps (255 is odd: there are no ties)
      unsigned const sum = rgba.pixels[4 * i + c] * alpha + 255 * (255 - alpha);
      out.pixels[3 * i + c] = static_cast<std::uint8_t>((sum + 127) / 255);
    }
  }
  return out;
}

Image8 crop(Image8 const& image, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width) {
  check(image);
  if (top < 0 || left < 0 || height <= 0 || width <= 0 || top + height > image.height || left + width > image.width) {
    throw DataError(fmt::format("crop of {} x {} at row {}, column {} leaves the picture of {} x {}, choose a window inside", height, width, top, left,
                                image.height, image.width));
  }
  Image8 out{height, width, image.channels, {}};
  out.pixels.reserve(static_cast<std::size_t>(height * width * image.channels));
  for (std::int64_t row = top; row < top + height; ++row) {
    auto const first = image.pixels.begin() + (row * image.width + left) * image.channels;
    out.pixels.insert(out.pixels.end(), first, first + width * image.channels);
  }
  return out;
}

}  // namespace duoflow::data
