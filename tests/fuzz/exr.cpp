// OpenEXR files, as they are, of every compression that scanline files have.

#include <ImfChannelList.h>
#include <ImfFrameBuffer.h>
#include <ImfHeader.h>
#include <ImfOutputFile.h>

#include "data/error.h"
#include "data/images/linear_picture.h"
#include "data/images/picture.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

namespace imf = OPENEXR_IMF_NAMESPACE;

bool read_exr_picture(std::string const& input) {
  auto const file = "\x76\x2f\x31\x01" + input;
  return read_or_refused<data::DataError>([&] {
    data::decode_linear(file, "in");
    data::check_picture(file, "in", data::ColourRule::assume_srgb);
  });
}

std::string exr_of(imf::Compression compression, char const* names, imf::PixelType type) {
  constexpr int width = 9, height = 5;
  imf::Header header(width, height);
  header.compression() = compression;
  std::vector<std::uint32_t> pixels(width * height, 0x3c003c00);  // 1 in half, about 0.008 in float
  imf::FrameBuffer buffer;
  for (char const* name = names; *name != '\0'; ++name) {
    header.channels().insert(std::string(1, *name), imf::Channel(type));
    buffer.insert(std::string(1, *name), imf::Slice(type, reinterpret_cast<char*>(pixels.data()), 4, 4 * width));
  }
  MemoryFolder const folder;
  {
    imf::OutputFile file((folder / "a.exr").c_str(), header, 0);
    file.setFrameBuffer(buffer);
    file.writePixels(height);
  }
  return bytes_of_file(folder / "a.exr").substr(4);
}

std::vector<std::string> exr_seeds() {
  std::vector<std::string> seeds;
  for (auto const compression : {imf::NO_COMPRESSION, imf::RLE_COMPRESSION, imf::ZIPS_COMPRESSION, imf::ZIP_COMPRESSION,
                                 imf::PIZ_COMPRESSION, imf::PXR24_COMPRESSION, imf::B44_COMPRESSION,
                                 imf::B44A_COMPRESSION, imf::DWAA_COMPRESSION, imf::DWAB_COMPRESSION})
    seeds.push_back(exr_of(compression, "RGB", imf::HALF));
  seeds.push_back(exr_of(imf::ZIP_COMPRESSION, "RGBA", imf::FLOAT));
  seeds.push_back(exr_of(imf::PIZ_COMPRESSION, "Y", imf::FLOAT));
  seeds.push_back(seeds[0].substr(0, 200));
  return seeds;
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(exr, duoflow::fuzz::read_exr_picture, duoflow::fuzz::exr_seeds);
