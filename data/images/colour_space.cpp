#include "data/images/colour_space.h"

#include <libdeflate.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::data {
namespace {

constexpr double kTolerance = 0.01;  // of gamma 1/2.2 and of chromaticities: writers round them to 2 to 5 decimals
constexpr std::size_t kMostProfileBytes = std::size_t{16} << 20;

std::size_t number(std::string_view bytes, std::size_t at, std::size_t count) {
  std::size_t value = 0;
  for (std::size_t i = 0; i < count; ++i) { value = value << 8 | static_cast<unsigned char>(bytes[at + i]); }
  return value;
}

// The text of a profile's description: ASCII, or UTF-16 less its zero bytes.
std::string description(std::string_view profile) {
  constexpr std::size_t kHeader = 128;
  if (profile.size() < kHeader + 4) { return ""; }
  std::size_t const tags = number(profile, kHeader, 4);
  for (std::size_t tag = 0; tag < tags && kHeader + 16 + 12 * tag <= profile.size(); ++tag) {
    std::size_t const at = kHeader + 4 + 12 * tag;
    if (profile.substr(at, 4) != "desc") { continue; }
    std::size_t const offset = number(profile, at + 4, 4), size = number(profile, at + 8, 4);
    if (offset > profile.size() || size > profile.size() - offset || size < 12) { return ""; }
    std::string_view const entry = profile.substr(offset, size);
    std::size_t const text = entry.substr(0, 4) == "mluc" ? 28 : 12;  // after the first record; after the count
    std::string out;
    for (char const c : entry.substr(std::min(text, entry.size()))) {
      if (c >= ' ' && c <= '~') { out += c; }
      if (out.size() == 60) { break; }
    }
    return out;
  }
  return "";
}

std::string profile_problem(std::string_view profile, std::string const& name) {
  std::string const text = description(profile);
  if (text.find("sRGB") != std::string::npos) { return ""; }
  return fmt::format("its ICC profile is \"{}\" (sRGB is needed)", text.empty() ? name : text);
}

std::optional<std::string> unpacked_profile(std::string_view packed) {
  std::unique_ptr<libdeflate_decompressor, void (*)(libdeflate_decompressor*)> const inflater(libdeflate_alloc_decompressor(), &libdeflate_free_decompressor);
  for (std::size_t size = std::size_t{1} << 14; size <= kMostProfileBytes; size *= 4) {
    std::string out(size, '\0');
    std::size_t found = 0;
    auto const result = libdeflate_zlib_decompress(inflater.get(), packed.data(), packed.size(), out.data(), out.size(), &found);
    if (result == LIBDEFLATE_INSUFFICIENT_SPACE) { continue; }
    if (result != LIBDEFLATE_SUCCESS) { return std::nullopt; }
    out.resize(found);
    return out;
  }
  return std::nullopt;
}

std::string iccp_problem(std::string_view data) {
  std::string const name(data.substr(0, data.find('\0')));
  if (data.size() < name.size() + 2) { return "its iCCP chunk is cut short"; }
  auto const profile = unpacked_profile(data.substr(name.size() + 2));
  return profile ? profile_problem(*profile, name) : "its iCCP chunk does not unpack";
}

std::string cicp_problem(std::string_view data) {
  if (data.size() != 4) { return "its cICP chunk is no four numbers"; }
  std::array<int, 4> const found{data[0], data[1], data[2], data[3]};
  if (found == std::array{1, 13, 0, 1}) { return ""; }
  return fmt::format("its cICP chunk says primaries {}, transfer {} (1 and 13 are sRGB's)", found[0], found[1]);
}

}  // namespace

bool is_rec709(std::vector<double> const& chromaticities) {
  static constexpr std::array<double, 8> expected{0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290};
  return std::equal(expected.begin(), expected.end(), chromaticities.begin(), chromaticities.end(),
                    [](double a, double b) { return std::abs(a - b) <= kTolerance; });
}

std::string png_colour_problem(std::vector<PngChunk> const& chunks) {
  auto const find = [&](std::string_view type) -> std::optional<std::string_view> {
    for (PngChunk const& chunk : chunks) {
      if (chunk.type == type) { return chunk.data; }
    }
    return std::nullopt;
  };
  if (auto const data = find("cICP")) { return cicp_problem(*data); }
  if (auto const data = find("iCCP")) { return iccp_problem(*data); }
  if (find("sRGB")) { return ""; }
  if (auto const data = find("gAMA"); data && data->size() == 4) {
    double const gamma = static_cast<double>(number(*data, 0, 4)) / 100000;
    if (std::abs(gamma - 1 / 2.2) > kTolerance) {
      return fmt::format("its gAMA chunk says {:.3f} (1/2.2 = 0.455 is needed{})", gamma, std::abs(gamma - 1) <= kTolerance ? "; 1 means linear" : "");
    }
  }
  if (auto const data = find("cHRM"); data && data->size() == 32) {
    std::vector<double> points;  // white comes first there
    for (std::size_t const i : {2U, 3U, 4U, 5U, 6U, 7U, 0U, 1U}) { points.push_back(static_cast<double>(number(*data, 4 * i, 4)) / 100000); }
    if (!is_rec709(points)) { return fmt::format("its cHRM chunk names primaries and white at {:.3f} (those of sRGB are needed)", fmt::join(points, " ")); }
  }
  return "";
}

std::string jpeg_colour_problem(std::string_view bytes) {
  std::string profile;
  std::size_t at = 2;  // the segments before the scan: mark, kind, length that counts itself
  while (at + 4 <= bytes.size() && static_cast<unsigned char>(bytes[at]) == 0xff) {
    auto const kind = static_cast<unsigned char>(bytes[at + 1]);
    if (kind == 0xff) {  // padding
      ++at;
      continue;
    }
    std::size_t const length = number(bytes, at + 2, 2);
    if (kind == 0xda || length < 2 || at + 2 + length > bytes.size()) { break; }
    std::string_view const data = bytes.substr(at + 4, length - 2);
    constexpr std::string_view kProfile("ICC_PROFILE\0", 12);
    if (kind == 0xe2 && data.substr(0, kProfile.size()) == kProfile && data.size() > 14) { profile += data.substr(14); }
    at += 2 + length;
  }
  return profile.empty() ? "" : profile_problem(profile, "unnamed");
}

}  // namespace duoflow::data
