// JPEG files, as they are.

#include <turbojpeg.h>

#include <memory>

#include "data/error.h"
#include "data/images/picture.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

bool read_jpeg(std::string const& input) {
  auto const file = "\xff\xd8\xff" + input;
  return read_or_refused<data::DataError>([&] {
    data::decode_picture(file, "in", data::ColourRule::assume_srgb);
    data::check_picture(file, "in", data::ColourRule::declared);
  });
}

std::string jpeg_of(int width, int height, int sampling, int flags) {
  std::vector<unsigned char> pixels(static_cast<std::size_t>(3 * width * height));
  for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<unsigned char>(11 * i);
  std::unique_ptr<void, int (*)(void*)> const coder(tjInitCompress(), &tjDestroy);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  tjCompress2(coder.get(), pixels.data(), width, 0, height, TJPF_RGB, &bytes, &size, sampling, 50, flags);
  std::string file(reinterpret_cast<char const*>(bytes), size);
  tjFree(bytes);
  return file.substr(3);
}

std::vector<std::string> jpeg_seeds() {
  auto const plain = jpeg_of(17, 9, TJSAMP_444, 0);
  std::string const profile = std::string("\xe2\0\x20ICC_PROFILE\0\1\1", 17) + std::string(16, 'p') + "\xff";
  return {plain, jpeg_of(16, 16, TJSAMP_420, TJFLAG_PROGRESSIVE), jpeg_of(8, 3, TJSAMP_GRAY, 0), profile + plain,
          plain.substr(0, 100)};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(jpeg, duoflow::fuzz::read_jpeg, duoflow::fuzz::jpeg_seeds);
