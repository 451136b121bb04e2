#include "data/images/picture.h"

#include <vector>

#include <fmt/format.h>

#include "data/images/colour_space.h"
#include "data/error.h"
#include "data/images/image_format.h"
#include "data/images/jpeg.h"
#include "data/images/linear_picture.h"
#include "data/images/png.h"

namespace duoflow::data {
namespace {

[[noreturn]] void refuse(std::string const& bytes, std::string const& name, char const* wanted) {
  throw DataError(fmt::format("{} is {} (its first bytes are those of neither {}), pass such a picture", name,
                              bytes.empty() ? "an empty file" : to_string(image_format(bytes)), wanted));
}

// Gives what `decode` returns; its reason gets the file's name.
template <class Decode>
auto named(std::string const& name, Decode const& decode) {
  try {
    return decode();
  } catch (DataError const& error) {
    throw DataError(fmt::format("{} is {}, copy or render it again", name, error.what()));
  }
}

void require_srgb(std::string const& problem, std::string const& name, ColourRule rule) {
  if (rule == ColourRule::declared && !problem.empty()) {
    throw DataError(fmt::format("{} has other colours than sRGB: {}; convert it to sRGB, or ask for sRGB to be assumed", name, problem));
  }
}

Image8 tone_mapped_file(std::string const& bytes, std::string const& name, ColourRule rule) {
  LinearPicture const picture = decode_linear(bytes, name);
  require_srgb(picture.colour_problem, name, rule);
  return named(name, [&] { return tone_mapped(picture); });
}

bool is_linear(std::string const& bytes) {
  ImageFormat const format = image_format(bytes);
  return format == ImageFormat::exr || format == ImageFormat::hdr;
}

}  // namespace

Image8 decode_encoded(std::string const& bytes, std::string const& name) {
  switch (image_format(bytes)) {
    case ImageFormat::png: return named(name, [&] { return decode_png(png_chunks(bytes)); });
    case ImageFormat::jpeg: return named(name, [&] { return decode_jpeg(bytes); });
    default: refuse(bytes, name, "PNG nor JPEG");
  }
}

ImageSize check_encoded(std::string const& bytes, std::string const& name) {
  switch (image_format(bytes)) {
    case ImageFormat::png: return named(name, [&] { return png_size(png_chunks(bytes)); });
    case ImageFormat::jpeg: return named(name, [&] { return jpeg_size(bytes); });
    default: refuse(bytes, name, "PNG nor JPEG");
  }
}

Image8 decode_picture(std::string const& bytes, std::string const& name, ColourRule rule) {
  return is_linear(bytes) ? tone_mapped_file(bytes, name, rule) : decode_encoded(bytes, name);
}

ImageSize check_picture(std::string const& bytes, std::string const& name, ColourRule rule) {
  switch (image_format(bytes)) {
    case ImageFormat::png: {
      auto const chunks = named(name, [&] { return png_chunks(bytes); });
      require_srgb(png_colour_problem(chunks), name, rule);
      return named(name, [&] { return png_size(chunks); });
    }
    case ImageFormat::jpeg: {
      require_srgb(jpeg_colour_problem(bytes), name, rule);
      auto const image = decode_encoded(bytes, name);
      return {image.height, image.width, image.channels};
    }
    case ImageFormat::exr:
    case ImageFormat::hdr: {
      auto const image = tone_mapped_file(bytes, name, rule);
      return {image.height, image.width, image.channels};
    }
    case ImageFormat::unknown: break;
  }
  refuse(bytes, name, "PNG, JPEG, EXR nor HDR");
}

}  // namespace duoflow::data
