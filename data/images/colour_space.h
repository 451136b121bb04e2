#pragma once
// What a picture file says about its colours. Pictures are taken as sRGB-encoded (shards name it "8-bit gamma 1/2.2"): one that
// declares something else would train the model on wrong radiance. Private to data/.

#include <string>
#include <string_view>
#include <vector>

#include "data/images/png.h"

namespace duoflow::data {

// Each gives "" for sRGB or no statement at all, else what is declared ("its gAMA chunk says 1.000 ..."). By the PNG standard's
// precedence only the first of cICP, iCCP, sRGB, gAMA with cHRM counts. An ICC profile counts as sRGB when its description says so.
std::string png_colour_problem(std::vector<PngChunk> const& chunks);
std::string jpeg_colour_problem(std::string_view bytes);

// Rec. 709 primaries and D65 white (red, green, blue, white: x, y) within 0.01.
bool is_rec709(std::vector<double> const& chromaticities);

}  // namespace duoflow::data
