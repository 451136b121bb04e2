// PNG files: as they are, or (beginning with 'c') as a list of chunks {4 letters, 2 bytes of length, data} that gets
// its checksums and compression here, so that what lies behind them is reached.

#include "data/error.h"
#include "data/images/picture.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

std::string png_of_chunks(std::string_view list) {
  std::string file(kPngMark);
  while (list.size() >= 6) {
    std::string const type(list.substr(0, 4));
    auto const data = list.substr(6, number_at(list, 4, 2));
    file += png_chunk(type, type == "IDAT" ? stored_zlib(data) : std::string(data));
    list.remove_prefix(6 + data.size());
  }
  return file + png_chunk("IEND", "");
}

bool read_png(std::string const& input) {
  auto const file =
      input.starts_with('c') ? png_of_chunks(std::string_view(input).substr(1)) : std::string(kPngMark) + input;
  return read_or_refused<data::DataError>([&] {
    data::check_picture(file, "in", data::ColourRule::assume_srgb);
    data::decode_picture(file, "in", data::ColourRule::assume_srgb);
    data::check_picture(file, "in", data::ColourRule::declared);
  });
}

std::string listed(std::string const& type, std::string const& data) {
  return type + little_endian(data.size(), 2) + data;
}

std::string picture(int depth, int colour, int interlace, std::size_t row_bytes, std::string const& more = "") {
  std::string rows;
  for (int row = 0; row < 5; ++row) {
    rows += static_cast<char>(row);  // its filter
    for (std::size_t i = 0; i < row_bytes; ++i) rows += static_cast<char>(7 * i + static_cast<std::size_t>(row));
  }
  return "c" + listed("IHDR", png_header(4, 5, depth, colour, interlace)) + more + listed("IDAT", rows);
}

std::vector<std::string> png_seeds() {
  std::string const palette = listed("PLTE", std::string(3 * 256, '\x55')) + listed("tRNS", "\x01\x02");
  // Adam7 of 4 x 5 pixels of a byte: grids of 1x1, 0, 1x1, 1x2, 3x2 (rows x columns) ...
  std::string const interlaced =
      "c" + listed("IHDR", png_header(4, 5, 8, 0, 1)) + listed("IDAT", std::string(33, '\0'));
  auto seeds = std::vector{
      picture(8, 2, 0, 12),
      picture(8, 6, 0, 16),
      picture(16, 6, 0, 32),
      picture(8, 3, 0, 4, palette),
      picture(1, 0, 0, 1, listed("tRNS", std::string(2, '\0'))),
      picture(16, 4, 0, 16),
      interlaced,
      picture(8, 2, 0, 12, listed("gAMA", big_endian(45455, 4)) + listed("cHRM", std::string(32, '\1'))),
      picture(8, 2, 0, 12, listed("iCCP", "name" + std::string(2, '\0') + stored_zlib(std::string(200, '\2')))),
      picture(8, 2, 0, 12, listed("cICP", std::string("\1\15\0\1", 4)))};
  auto const whole = png_of_chunks(std::string_view(seeds[0]).substr(1));
  seeds.push_back(whole.substr(kPngMark.size()));
  seeds.push_back(whole.substr(kPngMark.size(), 40));
  return seeds;
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(png, duoflow::fuzz::read_png, duoflow::fuzz::png_seeds);
