#pragma once
// Rows of a PNG as they lie in its decompressed stream: a filter byte, then packed samples. Private to png.cpp.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace duoflow::data {

struct PngForm {
  std::int64_t height = 0, width = 0;
  int depth = 8, samples = 3;               // bits of a sample, samples of a pixel as stored
  bool palette = false, interlaced = false;
  std::string_view colours, transparent;    // the palette; its alphas, or the transparent colour (16 bits a sample)

  std::int64_t channels() const { return samples == 2 || samples == 4 || !transparent.empty() ? 4 : 3; }  // as expanded
  std::size_t row_bytes(std::int64_t columns) const {
    return (static_cast<std::size_t>(columns) * static_cast<std::size_t>(depth * samples) + 7) / 8;
  }
  std::size_t pixel_bytes() const { return depth < 8 ? 1 : static_cast<std::size_t>(depth / 8 * samples); }
};

// Undoes the filters in place. DataError for a filter that does not exist.
void unfilter(std::uint8_t* rows, std::int64_t height, std::size_t row_bytes, std::size_t pixel_bytes);

// Unfiltered rows to 8-bit pixels of form.channels(). DataError for an index beyond the palette.
std::vector<std::uint8_t> expand(std::uint8_t const* rows, std::int64_t height, std::int64_t width, PngForm const& form);

}  // namespace duoflow::data
