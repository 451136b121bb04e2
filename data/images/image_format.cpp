#include "data/images/image_format.h"

#include <string_view>

namespace duoflow::data {

ImageFormat image_format(std::string const& bytes) {
  auto const starts = [&](std::string_view mark) { return std::string_view(bytes).substr(0, mark.size()) == mark; };
  if (starts(std::string_view("\x89PNG\r\n\x1a\n", 8))) { return ImageFormat::png; }
  if (starts("\xff\xd8\xff")) { return ImageFormat::jpeg; }
  if (starts("\x76\x2f\x31\x01")) { return ImageFormat::exr; }
  if (starts("#?")) { return ImageFormat::hdr; }
  return ImageFormat::unknown;
}

std::string to_string(ImageFormat format) {
  switch (format) {
    case ImageFormat::png: return "a PNG";
    case ImageFormat::jpeg: return "a JPEG";
    case ImageFormat::exr: return "an EXR";
    case ImageFormat::hdr: return "a Radiance HDR";
    case ImageFormat::unknown: break;
  }
  return "no known picture format";
}

}  // namespace duoflow::data
