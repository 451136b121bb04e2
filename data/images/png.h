#pragma once
// PNG bytes to 8-bit pixels: every colour type and depth of the standard, interlaced too. Private to data/.
// Decoding is libdeflate's inflate plus the row filters; libpng's or stb's took two to four times as long.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/images/image_io.h"

namespace duoflow::data {

struct PngChunk {
  std::string_view type, data;  // into the file's bytes
};
// The chunks up to the end mark, each whole and with the right checksum. DataError with the reason alone ("cut short: ...",
// "altered: ...", "no PNG ...").
std::vector<PngChunk> png_chunks(std::string_view bytes);

// What decode_png returns the size of, without decoding. DataError with the reason alone, as below.
ImageSize png_size(std::vector<PngChunk> const& chunks);

// 3 channels, or 4 where the file has alpha or a transparent colour. Grey becomes three equal channels, a palette its colours,
// depths below 8 are scaled to 0..255, 16-bit samples lose their low byte (as Pillow and libpng do). DataError with the reason
// alone when the compressed rows are damaged or do not fill the picture.
Image8 decode_png(std::vector<PngChunk> const& chunks);

}  // namespace duoflow::data
