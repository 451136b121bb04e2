#pragma once
// JPEG bytes to 8-bit pixels by libjpeg-turbo, which Pillow uses too: the same bytes. Private to data/.

#include <string>

#include "data/images/image_io.h"

namespace duoflow::data {

ImageSize jpeg_size(std::string const& bytes);
// Three channels (grey becomes three equal ones). DataError with the reason alone: cut short, damaged (also where the library
// would only warn and fill with grey), CMYK. An EXIF orientation is not applied, as Pillow does not.
Image8 decode_jpeg(std::string const& bytes);

}  // namespace duoflow::data
