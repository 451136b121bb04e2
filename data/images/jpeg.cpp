#include "data/images/jpeg.h"

#include <turbojpeg.h>

#include <cstddef>
#include <memory>

#include <fmt/format.h>

#include "data/error.h"

namespace duoflow::data {
namespace {

using Decoder = std::unique_ptr<void, int (*)(void*)>;

unsigned char const* turbo_bytes(std::string const& bytes) { return reinterpret_cast<unsigned char const*>(bytes.data()); }

ImageSize read_header(Decoder const& decoder, std::string const& bytes) {
  // A JPEG that lost its tail may still decode without a word when only its end mark is gone.
  if (bytes.rfind("\xff\xd9") == std::string::npos) { throw DataError(fmt::format("cut short: its {} bytes hold no end mark", bytes.size())); }
  int width = 0, height = 0, sampling = 0, space = 0;
  if (tjDecompressHeader3(decoder.get(), turbo_bytes(bytes), bytes.size(), &width, &height, &sampling, &space) != 0) {
    throw DataError(fmt::format("damaged: {}", tjGetErrorStr2(decoder.get())));
  }
  if (space == TJCS_CMYK || space == TJCS_YCCK) { throw DataError("a picture of printing inks (CMYK), save it as RGB"); }
  return {height, width, 3};
}

Decoder make_decoder() {
  Decoder decoder(tjInitDecompress(), &tjDestroy);
  if (!decoder) { throw DataError(fmt::format("not decodable here ({})", tjGetErrorStr2(nullptr))); }
  return decoder;
}

}  // namespace

ImageSize jpeg_size(std::string const& bytes) { return read_header(make_decoder(), bytes); }

Image8 decode_jpeg(std::string const& bytes) {
  Decoder const decoder = make_decoder();
  ImageSize const size = read_header(decoder, bytes);
  Image8 out{size.height, size.width, 3, std::vector<std::uint8_t>(static_cast<std::size_t>(3 * size.height * size.width))};
  if (tjDecompress2(decoder.get(), turbo_bytes(bytes), bytes.size(), out.pixels.data(), static_cast<int>(out.width), 0, static_cast<int>(out.height),
                    TJPF_RGB, 0) != 0) {
    throw DataError(fmt::format("damaged: {}", tjGetErrorStr2(decoder.get())));
  }
  return out;
}

}  // namespace duoflow::data
