#include "data/image_format.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <fmt/format.h>

namespace duoflow::data {
namespace {

constexpr std::string_view kPngMark("\x89PNG\r\n\x1a\n", 8);
constexpr std::size_t kChunkFrame = 12;  // length, type, checksum

std::uint32_t big_endian(std::string const& bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) { value = value << 8 | static_cast<std::uint8_t>(bytes[at + i]); }
  return value;
}

// tables[k][b]: the checksum of byte b followed by k zero bytes, so that eight bytes are taken in one step.
constexpr std::array<std::array<std::uint32_t, 256>, 8> make_crc_tables() {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) { value = (value & 1U) != 0 ? 0xedb88320U ^ (value >> 1) : value >> 1; }
    tables[0][byte] = value;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      std::uint32_t const value = tables[k - 1][byte];
      tables[k][byte] = tables[0][value & 0xffU] ^ (value >> 8);
    }
  }
  return tables;
}

std::uint32_t crc32(std::string_view bytes) {
  static constexpr auto tables = make_crc_tables();
  std::uint32_t value = 0xffffffffU;
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    std::uint32_t next = 0;
    for (std::size_t k = 0; k < 8; ++k) {
      std::uint32_t const mixed = static_cast<std::uint8_t>(bytes[i + k]) ^ (k < 4 ? value >> (8 * k) & 0xffU : 0U);
      next ^= tables[7 - k][mixed];
    }
    value = next;
  }
  for (; i < bytes.size(); ++i) { value = tables[0][(value ^ static_cast<std::uint8_t>(bytes[i])) & 0xffU] ^ (value >> 8); }
  return ~value;
}

}  // namespace

ImageFormat image_format(std::string const& bytes) {
  auto const starts = [&](std::string_view mark) { return std::string_view(bytes).substr(0, mark.size()) == mark; };
  if (starts(kPngMark)) { return ImageFormat::png; }
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

std::string png_damage(std::string const& bytes) {
  std::size_t at = kPngMark.size();
  while (at + kChunkFrame <= bytes.size()) {
    std::size_t const length = big_endian(bytes, at);
    std::string const type = bytes.substr(at + 4, 4);
    if (length > bytes.size() - at - kChunkFrame) {
      return fmt::format("cut short: the {} chunk at byte {} needs {} bytes, {} are left", type, at, length, bytes.size() - at - kChunkFrame);
    }
    std::uint32_t const stored = big_endian(bytes, at + 8 + length);
    std::uint32_t const found = crc32(std::string_view(bytes).substr(at + 4, 4 + length));
    if (stored != found) { return fmt::format("altered: the {} chunk at byte {} has checksum {:08x}, its bytes give {:08x}", type, at, stored, found); }
    if (type == "IEND") { return ""; }
    at += kChunkFrame + length;
  }
  return fmt::format("cut short: its {} bytes end before the end mark", bytes.size());
}

std::string jpeg_damage(std::string const& bytes) {
  if (bytes.rfind("\xff\xd9") == std::string::npos) { return fmt::format("cut short: its {} bytes hold no end mark", bytes.size()); }
  return "";
}

}  // namespace duoflow::data
