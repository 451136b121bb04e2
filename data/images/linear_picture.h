#pragma once
// Linear pictures (OpenEXR, Radiance HDR), as light maps and as pictures of a scene.

#include <cstdint>
#include <string>
#include <vector>

#include "data/images/image_io.h"

namespace duoflow::data {

// Values as stored: negative, infinite and NaN ones too. EXR colour is premultiplied by alpha.
struct LinearPicture {
  ImageF colour;
  std::vector<float> alpha;    // [H,W]; empty: none stored
  std::string colour_problem;  // "": Rec. 709 primaries or none declared, else what is declared
};
// DataError with the reason alone: cut short, damaged, channels that are neither R G B nor Y.
LinearPicture decode_exr(std::string const& bytes);
LinearPicture decode_hdr(std::string const& bytes);  // radiance = pixel / EXPOSURE
// EXR or HDR by its first bytes. DataError naming NAME.
LinearPicture decode_linear(std::string const& bytes, std::string const& name);

// What was wrong with the numbers of a map, and was put right.
struct MapRepairs {
  std::int64_t negative = 0;      // (compression ringing) became 0
  std::int64_t not_a_number = 0;  // became 0
  std::int64_t too_bright = 0;    // beyond half's largest number, infinity too: became 65504
  std::string text() const;       // "3 negative and 1 NaN number became 0, 2 above 65504 became 65504"; "" when nothing was
};
MapRepairs repair(ImageF& map);

// For pictures: colour over alpha, clipped to [0,1], ^(1/2.2) as the LVSM family's renders are encoded, to the nearest of 256
// steps; alpha rounded, 4 channels when there is alpha. NaN is a DataError with the reason alone.
Image8 tone_mapped(LinearPicture const& picture);

}  // namespace duoflow::data
