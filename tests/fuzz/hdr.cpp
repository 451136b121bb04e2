// Radiance HDR files, as they are.

#include "data/error.h"
#include "data/images/linear_picture.h"
#include "data/images/picture.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

bool read_hdr_picture(std::string const& input) {
  auto const file = "#?" + input;
  return read_or_refused<data::DataError>([&] {
    data::decode_linear(file, "in");
    data::check_picture(file, "in", data::ColourRule::assume_srgb);
  });
}

std::vector<std::string> hdr_seeds() {
  std::string const head = "RADIANCE\nFORMAT=32-bit_rle_rgbe\n";
  std::string planes("\2\2\0\10", 4);  // 8 pixels: a run, literals, a run, a run
  planes += std::string("\x88\x10\10\1\2\3\4\5\6\7\10\x88\x20\x88\x80", 15);
  std::string const repeated = "abc\x80\1\1\1\7";  // a pixel and seven times the same
  return {head + "\n-Y 1 +X 8\n" + planes,
          head + "EXPOSURE=2.5\n\n-Y 2 +X 2\n" + std::string(16, 'p'),
          head + "PRIMARIES=0.64 0.33 0.3 0.6 0.15 0.06 0.3127 0.329\n\n-Y 1 +X 8\n" + repeated,
          head + "\n-Y 2000000 +X 2000000\n" + planes,
          head + "EXPOSURE=0\n\n-Y 1 +X 1\nabcd",
          head};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(hdr, duoflow::fuzz::read_hdr_picture, duoflow::fuzz::hdr_seeds);
