#pragma once
// Numbers, PNG and zip files as bytes, with the checksums that their readers ask for.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace duoflow::fuzz {

inline std::string little_endian(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  return text;
}

inline std::string big_endian(std::uint64_t value, int bytes) {
  auto const text = little_endian(value, bytes);
  return {text.rbegin(), text.rend()};
}

inline std::uint64_t number_at(std::string_view text, std::size_t at, std::size_t bytes) {  // little-endian
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) value |= std::uint64_t{static_cast<unsigned char>(text[at + i])} << (8 * i);
  return value;
}

inline std::uint32_t crc_of(std::string_view bytes) {  // ISO 3309
  std::uint32_t crc = 0xffffffff;
  for (char const c : bytes) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0U);
  }
  return ~crc;
}

// A zlib stream that stores its bytes as they are (RFC 1950, 1951).
inline std::string stored_zlib(std::string_view bytes) {
  constexpr std::size_t most = 65535;
  std::string out = "\x78\x01";
  std::uint32_t a = 1, b = 0;
  for (char const c : bytes) a = (a + static_cast<unsigned char>(c)) % 65521, b = (b + a) % 65521;
  std::size_t at = 0;
  do {
    auto const part = bytes.substr(at, most);
    at += part.size();
    out += at == bytes.size() ? '\1' : '\0';
    out += little_endian(part.size(), 2) + little_endian(~part.size() & 0xffff, 2);
    out += part;
  } while (at < bytes.size());
  return out + big_endian(b, 2) + big_endian(a, 2);
}

inline constexpr std::string_view kPngMark("\x89PNG\r\n\x1a\n", 8);

inline std::string png_chunk(std::string const& type, std::string const& data) {
  return big_endian(data.size(), 4) + type + data + big_endian(crc_of(type + data), 4);
}

inline std::string png_header(std::uint32_t width, std::uint32_t height, int depth, int colour, int interlace) {
  return big_endian(width, 4) + big_endian(height, 4) + static_cast<char>(depth) + static_cast<char>(colour) +
         std::string(2, '\0') + static_cast<char>(interlace);
}

// Entries stored as they are, as torch.save does.
inline std::string zip_of_entries(std::vector<std::pair<std::string, std::string>> const& entries) {
  std::string file, table;
  for (auto const& [name, data] : entries) {
    auto const crc = little_endian(crc_of(data), 4),
               sizes = little_endian(data.size(), 4) + little_endian(data.size(), 4);
    auto const offset = file.size();
    file += little_endian(0x04034b50, 4) + std::string(10, '\0') + crc + sizes + little_endian(name.size(), 2) +
            std::string(2, '\0') + name + data;
    table += little_endian(0x02014b50, 4) + std::string(12, '\0') + crc + sizes + little_endian(name.size(), 2) +
             std::string(12, '\0') + little_endian(offset, 4) + name;
  }
  auto const begin = file.size();
  return file + table + little_endian(0x06054b50, 4) + std::string(4, '\0') + little_endian(entries.size(), 2) +
         little_endian(entries.size(), 2) + little_endian(table.size(), 4) + little_endian(begin, 4) +
         std::string(2, '\0');
}

}  // namespace duoflow::fuzz
