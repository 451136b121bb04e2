#include "data/images/png.h"

#include <libdeflate.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <memory>

#include <fmt/format.h>

#include "data/error.h"
#include "data/images/png_rows.h"

namespace duoflow::data {
namespace {

constexpr std::string_view kMark("\x89PNG\r\n\x1a\n", 8);
constexpr std::size_t kChunkFrame = 12;  // length, type, checksum
constexpr std::int64_t kMostPixels = std::int64_t{1} << 28;  // 16384 x 16384: a larger header is damage, not a picture

std::uint32_t big_endian(std::string_view bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) { value = value << 8 | static_cast<std::uint8_t>(bytes[at + i]); }
  return value;
}

std::string_view first_of(std::vector<PngChunk> const& chunks, std::string_view type) {
  for (PngChunk const& chunk : chunks) {
    if (chunk.type == type) { return chunk.data; }
  }
  return {};
}

PngForm form_of(std::vector<PngChunk> const& chunks) {
  std::string_view const header = chunks.empty() || chunks[0].type != "IHDR" ? std::string_view{} : chunks[0].data;
  if (header.size() != 13) { throw DataError("no PNG picture: its first chunk is not a header of 13 bytes"); }
  PngForm form;
  form.width = big_endian(header, 0);
  form.height = big_endian(header, 4);
  form.depth = static_cast<std::uint8_t>(header[8]);
  int const colour = static_cast<std::uint8_t>(header[9]), interlace = static_cast<std::uint8_t>(header[12]);
  static constexpr std::array<int, 7> samples{1, 0, 3, 1, 2, 0, 4};
  bool const known = colour < 7 && samples[static_cast<std::size_t>(colour)] > 0 && header[10] == 0 && header[11] == 0 && interlace <= 1;
  bool const small = form.depth == 1 || form.depth == 2 || form.depth == 4;
  if (!known || !(form.depth == 8 || (form.depth == 16 && colour != 3) || (small && (colour == 0 || colour == 3)))) {
    throw DataError(fmt::format("its header names colour type {} of depth {}, interlace {} (the standard has no such PNG)", colour, form.depth, interlace));
  }
  form.samples = samples[static_cast<std::size_t>(colour)];
  form.palette = colour == 3;
  form.interlaced = interlace == 1;
  if (form.width <= 0 || form.height <= 0 || form.width > kMostPixels / form.height) {
    throw DataError(fmt::format("its header says {} x {} pixels", form.height, form.width));
  }
  form.colours = first_of(chunks, "PLTE");
  form.transparent = first_of(chunks, "tRNS");
  if (form.palette && (form.colours.empty() || form.colours.size() % 3 != 0)) {
    throw DataError(fmt::format("its palette has {} bytes (3 for each colour are needed)", form.colours.size()));
  }
  if (form.samples == 2 || form.samples == 4 || (!form.palette && form.transparent.size() < static_cast<std::size_t>(2 * form.samples))) {
    form.transparent = {};
  }
  return form;
}

// The rows are one thread's until its next call: fresh pages for every picture cost a tenth of the time.
std::uint8_t* inflate(std::vector<PngChunk> const& chunks, std::size_t size) {
  std::string joined;  // of several data chunks
  std::string_view packed;
  for (PngChunk const& chunk : chunks) {
    if (chunk.type != "IDAT") { continue; }
    if (packed.empty()) {
      packed = chunk.data;
      continue;
    }
    if (joined.empty()) { joined = packed; }
    joined += chunk.data;
    packed = joined;
  }
  constexpr std::size_t kMostUnpacking = 1032;  // what deflate can at most: https://zlib.net/zlib_tech.html
  if (size / kMostUnpacking > packed.size()) {
    throw DataError(fmt::format("altered: its {} compressed bytes cannot hold the picture's {}", packed.size(), size));
  }
  thread_local std::vector<std::uint8_t> rows;
  rows.resize(size);
  thread_local std::unique_ptr<libdeflate_decompressor, void (*)(libdeflate_decompressor*)> const inflater(libdeflate_alloc_decompressor(),
                                                                                                            &libdeflate_free_decompressor);
  std::size_t found = 0;
  auto const result = libdeflate_zlib_decompress(inflater.get(), packed.data(), packed.size(), rows.data(), rows.size(), &found);
  if (result == LIBDEFLATE_BAD_DATA) { throw DataError("altered: its compressed rows do not unpack"); }
  if (result != LIBDEFLATE_SUCCESS || found != size) {
    throw DataError(fmt::format("altered: its compressed rows hold {} {} bytes, the picture has {}", result == LIBDEFLATE_SUCCESS ? "only" : "more than",
                                result == LIBDEFLATE_SUCCESS ? found : size, size));
  }
  return rows.data();
}

// The seven grids of Adam7: first row and column, steps.
struct Grid {
  std::int64_t top, left, down, right;
  std::int64_t rows(PngForm const& form) const { return (form.height - top + down - 1) / down; }
  std::int64_t columns(PngForm const& form) const { return (form.width - left + right - 1) / right; }
};
constexpr std::array<Grid, 7> kAdam7{{{0, 0, 8, 8}, {0, 4, 8, 8}, {4, 0, 8, 4}, {0, 2, 4, 4}, {2, 0, 4, 2}, {0, 1, 2, 2}, {1, 0, 2, 1}}};
constexpr std::array<Grid, 1> kWhole{{{0, 0, 1, 1}}};

}  // namespace

std::vector<PngChunk> png_chunks(std::string_view bytes) {
  if (bytes.substr(0, kMark.size()) != kMark) { throw DataError("no PNG: its first bytes are others"); }
  std::vector<PngChunk> chunks;
  std::size_t at = kMark.size();
  while (at + kChunkFrame <= bytes.size()) {
    std::size_t const length = big_endian(bytes, at);
    std::string_view const type = bytes.substr(at + 4, 4);
    if (length > bytes.size() - at - kChunkFrame) {
      throw DataError(fmt::format("cut short: the {} chunk at byte {} needs {} bytes, {} are left", type, at, length, bytes.size() - at - kChunkFrame));
    }
    std::uint32_t const stored = big_endian(bytes, at + 8 + length);
    std::uint32_t const found = libdeflate_crc32(0, bytes.data() + at + 4, 4 + length);
    if (stored != found) {
      throw DataError(fmt::format("altered: the {} chunk at byte {} has checksum {:08x}, its bytes give {:08x}", type, at, stored, found));
    }
    chunks.push_back({type, bytes.substr(at + 8, length)});
    if (type == "IEND") { return chunks; }
    at += kChunkFrame + length;
  }
  throw DataError(fmt::format("cut short: its {} bytes end before the end mark", bytes.size()));
}

ImageSize png_size(std::vector<PngChunk> const& chunks) {
  PngForm const form = form_of(chunks);
  return {form.height, form.width, form.channels()};
}

Image8 decode_png(std::vector<PngChunk> const& chunks) {
  PngForm const form = form_of(chunks);
  auto const* const begin = form.interlaced ? kAdam7.data() : kWhole.data();
  auto const* const end = form.interlaced ? kAdam7.data() + kAdam7.size() : kWhole.data() + kWhole.size();
  std::size_t size = 0;
  for (auto const* grid = begin; grid != end; ++grid) {
    if (grid->columns(form) > 0) { size += static_cast<std::size_t>(grid->rows(form)) * (1 + form.row_bytes(grid->columns(form))); }
  }
  std::uint8_t* from = inflate(chunks, size);
  Image8 out{form.height, form.width, form.channels(), {}};
  for (auto const* grid = begin; grid != end; ++grid) {
    std::int64_t const height = grid->rows(form), width = grid->columns(form);
    if (height <= 0 || width <= 0) { continue; }
    unfilter(from, height, form.row_bytes(width), form.pixel_bytes());
    std::vector<std::uint8_t> part = expand(from, height, width, form);
    from += static_cast<std::size_t>(height) * (1 + form.row_bytes(width));
    if (!form.interlaced) {
      out.pixels = std::move(part);
      break;
    }
    out.pixels.resize(static_cast<std::size_t>(out.height * out.width * out.channels));
    auto const pixel = static_cast<std::size_t>(out.channels);
    for (std::int64_t i = 0; i < height * width; ++i) {
      std::int64_t const row = grid->top + i / width * grid->down, column = grid->left + i % width * grid->right;
      std::memcpy(out.pixels.data() + static_cast<std::size_t>(row * out.width + column) * pixel, part.data() + static_cast<std::size_t>(i) * pixel, pixel);
    }
  }
  return out;
}

}  // namespace duoflow::data
