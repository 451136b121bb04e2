#include "data/images/jpeg.h"

#include <turbojpeg.h>

#include <cstddef>
#include <iterator>
#include <memory>

#include <fmt/format.h>

#include "data/error.h"

namespace duoflow::data {
namespace {

using Decoder = std::unique_ptr<void, int (*)(void*)>;

constexpr std::int64_t kMostPixels = std::int64_t{1} << 28;  // 16384 x 16384: a larger header is damage, not a picture
// Each block of 8 x 8 pixels takes a bit. Where that is not much memory it is left to the decoder to find out.
constexpr std::int64_t kMostPixelsPerByte = 512, kFewPixels = std::int64_t{1} << 20;

unsigned char const* turbo_bytes(std::string const& bytes) { return reinterpret_cast<unsigned char const*>(bytes.data()); }

ImageSize read_header(Decoder const& decoder, std::string const& bytes) {
  // A JPEG that lost its tail may still decode without a word when only its end mark is gone.
  if (bytes.rfind("\xff\xd9") == std::string::npos) { throw DataError(fmt::format("cut short: its {} bytes hold no end mark", bytes.size())); }
  int width = 0, height = 0, sampling = 0, space = 0;
  if (tjDecompressHeader3(decoder.get(), turbo_bytes(bytes), bytes.size(), &width, &height, &sampling, &space) != 0) {
    throw DataError(fmt::format("damaged: {}", tjGetErrorStr2(decoder.get())));
  }
  if (space == TJCS_CMYK || space == TJCS_YCCK) { throw DataError("a picture of printing inks (CMYK), save it as RGB"); }
  std::int64_t const pixels = std::int64_t{height} * width;
  if (pixels > kMostPixels || (pixels > kFewPixels && pixels / kMostPixelsPerByte > std::ssize(bytes))) {
    throw DataError(fmt::format("damaged: its {} bytes cannot hold the {} x {} pixels that its header says", bytes.size(), height, width));
  }
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
                    TJPF_RGB, TJFLAG_LIMITSCANS) != 0) {
    throw DataError(fmt::format("damaged: {}", tjGetErrorStr2(decoder.get())));
  }
  return out;
}

}  // namespace duoflow::data
