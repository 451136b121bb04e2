#pragma once
// The pictures of a scene from the bytes of a file, whatever its format. Private to data/.

#include <string>

#include "data/images/image_io.h"

namespace duoflow::data {

// PNG or JPEG. DataError naming NAME; check_encoded verifies PNG checksums and a JPEG's header and end mark.
Image8 decode_encoded(std::string const& bytes, std::string const& name);
ImageSize check_encoded(std::string const& bytes, std::string const& name);

enum class ColourRule {
  declared,     // a picture that declares other colours than sRGB (linear: than Rec. 709) is an error
  assume_srgb,  // declarations are not looked at
};
// PNG, JPEG, OpenEXR or Radiance HDR as 8-bit encoded pixels; linear ones are tone mapped (linear_picture.h). A PNG that declares
// sRGB or gamma 1/2.2, or nothing, is taken as it is, 16-bit ones too.
Image8 decode_picture(std::string const& bytes, std::string const& name, ColourRule rule);
// The size decode_picture's result will have, or its error. Files without checksums (all but PNG) are decoded for that.
ImageSize check_picture(std::string const& bytes, std::string const& name, ColourRule rule);

}  // namespace duoflow::data
