#pragma once
// What a picture file is by its first bytes, and whether its bytes are all there. Private to this folder.

#include <string>

namespace duoflow::data {

enum class ImageFormat { png, jpeg, exr, hdr, unknown };

ImageFormat image_format(std::string const& bytes);
std::string to_string(ImageFormat format);  // "a PNG", "a JPEG", ...

// "" when every PNG chunk is whole and its checksum holds up to the end mark, else what is wrong. Decoders skip these
// checks and return grey or shifted rows instead.
std::string png_damage(std::string const& bytes);
// "" when the JPEG's end mark is there. JPEG has no checksums.
std::string jpeg_damage(std::string const& bytes);

}  // namespace duoflow::data
