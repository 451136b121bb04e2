#pragma once
// What a picture file is by its first bytes. Private to data/.

#include <string>

namespace duoflow::data {

enum class ImageFormat { png, jpeg, exr, hdr, unknown };

ImageFormat image_format(std::string const& bytes);
std::string to_string(ImageFormat format);  // "a PNG", "a JPEG", ...

}  // namespace duoflow::data
