#include "data/image_io.h"

#include <cstddef>
#include <limits>
#include <memory>

#include <fmt/format.h>

#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

#include "data/error.h"
#include "data/file.h"
#include "data/image_format.h"

namespace duoflow::data {
namespace {

void append(void* text, void* bytes, int count) {
  static_cast<std::string*>(text)->append(static_cast<char const*>(bytes), static_cast<std::size_t>(count));
}

stbi_uc const* stb_bytes(std::string const& bytes) { return reinterpret_cast<stbi_uc const*>(bytes.data()); }
int stb_size(std::string const& bytes) { return static_cast<int>(bytes.size()); }

// The bytes when they are a whole PNG or JPEG.
std::string checked(std::string bytes, std::string const& path) {
  ImageFormat const format = image_format(bytes);
  if (format != ImageFormat::png && format != ImageFormat::jpeg) {
    throw DataError(fmt::format("{} is {} (its first bytes are those of neither PNG nor JPEG), pass a PNG or JPEG picture", path,
                                bytes.empty() ? "an empty file" : to_string(format)));
  }
  std::string const damage = format == ImageFormat::png ? png_damage(bytes) : jpeg_damage(bytes);
  if (!damage.empty()) { throw DataError(fmt::format("{} is {}, copy or render it again", path, damage)); }
  if (bytes.size() > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    throw DataError(fmt::format("{} has {} bytes (2 GiB is the most), make it smaller", path, bytes.size()));
  }
  return bytes;
}

ImageSize size_of(std::string const& bytes, std::string const& path) {
  int width = 0, height = 0, channels = 0;
  if (stbi_info_from_memory(stb_bytes(bytes), stb_size(bytes), &width, &height, &channels) == 0) {
    throw DataError(fmt::format("{} cannot be decoded ({}), copy or render it again", path, stbi_failure_reason()));
  }
  return {height, width, channels < 3 ? channels + 2 : channels};
}

// Grey becomes three equal channels, grey with alpha four.
std::vector<std::uint8_t> widened(std::uint8_t const* pixels, std::size_t count, std::size_t channels) {
  if (channels >= 3) { return {pixels, pixels + count * channels}; }
  std::vector<std::uint8_t> out;
  out.reserve(count * (channels + 2));
  for (std::size_t i = 0; i < count; ++i) {
    out.insert(out.end(), 3, pixels[i * channels]);
    if (channels == 2) { out.push_back(pixels[i * channels + 1]); }
  }
  return out;
}

void check(Image8 const& image) {
  if (image.height <= 0 || image.width <= 0 || image.channels < 1 || image.channels > 4 ||
      image.pixels.size() != static_cast<std::size_t>(image.height * image.width * image.channels)) {
    throw DataError(fmt::format("a picture of {} x {} x {} has {} bytes (sizes must be positive and agree), pass a whole picture", image.height,
                                image.width, image.channels, image.pixels.size()));
  }
}

}  // namespace

ImageSize check_image(std::string const& path) { return size_of(checked(read_text(path), path), path); }

Image8 read_image(std::string const& path) { return decode_image(read_text(path), path); }

Image8 decode_image(std::string text, std::string const& path) {
  std::string const bytes = checked(std::move(text), path);
  int width = 0, height = 0, channels = 0;
  std::unique_ptr<stbi_uc, void (*)(void*)> const pixels(stbi_load_from_memory(stb_bytes(bytes), stb_size(bytes), &width, &height, &channels, 0),
                                                         &stbi_image_free);
  if (!pixels) { throw DataError(fmt::format("{} cannot be decoded ({}), copy or render it again", path, stbi_failure_reason())); }
  std::size_t const count = static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  return {height, width, channels < 3 ? channels + 2 : channels, widened(pixels.get(), count, static_cast<std::size_t>(channels))};
}

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
