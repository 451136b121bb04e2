#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <exception>
#include <iterator>
#include <sstream>
#include <string_view>
#include <utility>

#include <ImathBox.h>
#include <ImfChannelList.h>
#include <ImfFrameBuffer.h>
#include <ImfHeader.h>
#include <ImfStandardAttributes.h>
#include <ImfIO.h>
#include <ImfInputFile.h>
#include <ImfOutputFile.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/images/colour_space.h"
#include "data/error.h"
#include "data/file.h"
#include "data/images/image_io.h"
#include "data/images/linear_picture.h"

namespace duoflow::data {
namespace {

namespace imf = OPENEXR_IMF_NAMESPACE;

constexpr float kLargestHalf = 65504.0F;
constexpr std::int64_t kMostPixels = std::int64_t{1} << 28;  // 16384 x 16384: a larger header is damage, not a light map
constexpr int kLongestSide = 1 << 16;
// Beyond what any of the format's compressions makes of a large map of one colour; where that is not much memory the decoder finds out.
constexpr std::int64_t kMostPixelsPerByte = 1 << 12, kFewPixels = std::int64_t{1} << 22;

// A whole file in memory, as OpenEXR wants to read one.
class MemoryIn : public imf::IStream {
 public:
  explicit MemoryIn(std::string const& bytes) : IStream("memory"), bytes_(bytes) {}
  bool read(char out[], int count) override {
    auto const wanted = static_cast<std::size_t>(count);
    if (wanted > bytes_.size() - at_) { throw DataError(fmt::format("it ends after {} bytes", bytes_.size())); }
    std::copy_n(bytes_.data() + at_, wanted, out);
    at_ += wanted;
    return at_ < bytes_.size();
  }
  uint64_t tellg() override { return at_; }
  void seekg(uint64_t position) override { at_ = std::min<std::size_t>(position, bytes_.size()); }

 private:
  std::string const& bytes_;
  std::size_t at_ = 0;
};

class MemoryOut : public imf::OStream {
 public:
  MemoryOut() : OStream("memory") {}
  void write(char const from[], int count) override { stream_.write(from, count); }
  uint64_t tellp() override { return static_cast<uint64_t>(stream_.tellp()); }
  void seekp(uint64_t position) override { stream_.seekp(static_cast<std::streamoff>(position)); }
  std::string bytes() const { return stream_.str(); }

 private:
  std::ostringstream stream_;
};

// Of types that have one size the library reads that many bytes, whatever size the attribute says, and of channels as many as there
// are: the two have to agree, else it would go on at another place than was looked at here.
constexpr std::array<std::pair<std::string_view, std::uint32_t>, 24> kTypeBytes{
    {{"box2f", 16}, {"box2i", 16}, {"chromaticities", 32}, {"compression", 1}, {"deepImageState", 1}, {"double", 8}, {"envmap", 1}, {"float", 4},
     {"int", 4}, {"keycode", 28}, {"lineOrder", 1}, {"m33d", 72}, {"m33f", 36}, {"m44d", 128}, {"m44f", 64}, {"rational", 8}, {"tiledesc", 9},
     {"timecode", 8}, {"v2d", 16}, {"v2f", 8}, {"v2i", 8}, {"v3d", 24}, {"v3f", 12}, {"v3i", 12}}};

bool is_channel_list(std::string_view bytes) {
  constexpr std::size_t kChannelBytes = 16;  // behind its name
  for (;;) {
    auto const end = bytes.find('\0');
    if (end == std::string_view::npos || end == 0) { return end == 0 && bytes.size() == 1; }
    if (bytes.size() - end - 1 < kChannelBytes) { return false; }
    bytes.remove_prefix(end + 1 + kChannelBytes);
  }
}

// The header's attributes {name, type, size, bytes} lie within the file: the library takes memory for whatever size one says.
// A name of no letters ends a header, and where there are several (bit 12 of the version) the list of them.
void require_whole_header(std::string_view bytes) {
  constexpr std::size_t kBeforeHeader = 8;
  constexpr unsigned char kSeveral = 0x10;  // of the version's second byte
  bool const several = bytes.size() >= kBeforeHeader && (static_cast<unsigned char>(bytes[5]) & kSeveral) != 0;
  std::size_t at = kBeforeHeader;
  auto const word = [&] {
    auto const end = bytes.find('\0', std::min(at, bytes.size()));
    if (end == std::string_view::npos) { throw DataError(fmt::format("its header does not end within its {} bytes", bytes.size())); }
    auto const text = bytes.substr(at, end - at);
    at = end + 1;
    return text;
  };
  for (bool begins = true;;) {
    bool const ends = word().empty();
    if (ends && (!several || begins)) { return; }
    begins = ends;
    if (ends) { continue; }
    auto const type = word();
    std::uint32_t size = 0;
    for (std::size_t i = 0; i < 4; ++i) { size |= std::uint32_t{at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0xffU} << (8 * i); }
    at += 4;
    if (at > bytes.size() || size > bytes.size() - at) {
      throw DataError(fmt::format("an attribute in its header says {} bytes, {} are left", size, bytes.size() - std::min(at, bytes.size())));
    }
    auto const* const known = std::find_if(kTypeBytes.begin(), kTypeBytes.end(), [&](auto const& row) { return row.first == type; });
    if ((known != kTypeBytes.end() && known->second != size) || (type == "chlist" && !is_channel_list(bytes.substr(at, size)))) {
      throw DataError(fmt::format("an attribute of type {} in its header says {} bytes, which it cannot have", type, size));
    }
    at += size;
  }
}

// R, G and B, or luminance alone for all three.
std::array<char const*, 3> colour_channels(imf::ChannelList const& channels) {
  if (channels.findChannel("R") != nullptr && channels.findChannel("G") != nullptr && channels.findChannel("B") != nullptr) { return {"R", "G", "B"}; }
  if (channels.findChannel("Y") != nullptr) { return {"Y", "Y", "Y"}; }
  std::string names;
  for (auto channel = channels.begin(); channel != channels.end(); ++channel) { names += fmt::format("{}{}", names.empty() ? "" : " ", channel.name()); }
  throw DataError(fmt::format("its channels are '{}', R G B or Y are needed", names));
}

std::vector<float> read_channel(imf::InputFile& file, char const* name, IMATH_NAMESPACE::Box2i const& window, std::size_t width,
                                std::size_t height) {
  std::vector<float> plane(width * height);
  imf::FrameBuffer buffer;
  buffer.insert(name, imf::Slice::Make(imf::FLOAT, plane.data(), window, sizeof(float), sizeof(float) * width));
  file.setFrameBuffer(buffer);
  file.readPixels(window.min.y, window.max.y);
  return plane;
}

// The header's chromaticities when they are not those of Rec. 709.
std::string colour_problem_of(imf::Header const& header) {
  if (!imf::hasChromaticities(header)) { return ""; }
  imf::Chromaticities const& found = imf::chromaticities(header);
  std::vector<double> points;
  for (auto const& point : {found.red, found.green, found.blue, found.white}) {
    points.push_back(static_cast<double>(point.x));
    points.push_back(static_cast<double>(point.y));
  }
  return is_rec709(points) ? "" : fmt::format("its chromaticities are {:.3f} (those of Rec. 709 are needed)", fmt::join(points, " "));
}

LinearPicture decode(std::string const& bytes) {
  // The library's own tables follow the header's size before anyone else sees it.
  static bool const limited = (imf::Header::setMaxImageSize(kLongestSide, kLongestSide), imf::Header::setMaxTileSize(kLongestSide, kLongestSide), true);
  static_cast<void>(limited);
  require_whole_header(bytes);
  MemoryIn stream(bytes);
  imf::InputFile file(stream);
  auto const window = file.header().dataWindow();
  std::int64_t const width = std::int64_t{window.max.x} - window.min.x + 1, height = std::int64_t{window.max.y} - window.min.y + 1;
  bool const possible = width > 0 && height > 0 && width <= kLongestSide && height <= kLongestSide && width * height <= kMostPixels;
  if (!possible || (width * height > kFewPixels && width * height / kMostPixelsPerByte > std::ssize(bytes))) { throw DataError(fmt::format("its data window is {} x {} pixels", height, width)); }
  auto const plane_of = [&](char const* name) { return read_channel(file, name, window, static_cast<std::size_t>(width), static_cast<std::size_t>(height)); };
  LinearPicture out;
  out.colour = {height, width, std::vector<float>(static_cast<std::size_t>(3 * width * height))};
  out.colour_problem = colour_problem_of(file.header());
  auto const names = colour_channels(file.header().channels());
  for (std::size_t c = 0; c < 3; ++c) {
    auto const plane = plane_of(names[c]);
    for (std::size_t i = 0; i < plane.size(); ++i) { out.colour.pixels[3 * i + c] = plane[i]; }
  }
  if (file.header().channels().findChannel("A") != nullptr) { out.alpha = plane_of("A"); }
  return out;
}

}  // namespace

LinearPicture decode_exr(std::string const& bytes) {
  try {
    return decode(bytes);
  } catch (DataError const&) {
    throw;
  } catch (std::exception const& error) {  // the library's own classes
    throw DataError(error.what());
  }
}

ImageF read_exr(std::string const& path) {
  ImageF map = decode_linear(read_text(path), path).colour;
  for (float& value : map.pixels) {
    if (std::isnan(value)) { throw DataError(fmt::format("{} holds a value that is not a number (a light map must be finite), export it again", path)); }
    value = std::isinf(value) && value > 0 ? kLargestHalf : std::max(value, 0.0F);
  }
  return map;
}

void write_exr(std::string const& path, ImageF const& image) {
  if (image.height <= 0 || image.width <= 0 || image.pixels.size() != static_cast<std::size_t>(3 * image.height * image.width)) {
    throw DataError(fmt::format("cannot write {} (a map of {} x {} with {} numbers), pass a whole map", path, image.height, image.width, image.pixels.size()));
  }
  MemoryOut stream;
  try {
    imf::Header header(static_cast<int>(image.width), static_cast<int>(image.height));
    header.compression() = imf::ZIP_COMPRESSION;  // lossless
    imf::FrameBuffer buffer;
    std::size_t const pixel = 3 * sizeof(float);
    for (std::size_t c = 0; c < 3; ++c) {
      char const* const name = std::array{"R", "G", "B"}[c];
      header.channels().insert(name, imf::Channel(imf::FLOAT));
      char* const base = const_cast<char*>(reinterpret_cast<char const*>(image.pixels.data() + c));  // the library only reads through it
      buffer.insert(name, imf::Slice(imf::FLOAT, base, pixel, pixel * static_cast<std::size_t>(image.width)));
    }
    imf::OutputFile file(stream, header, 0);
    file.setFrameBuffer(buffer);
    file.writePixels(static_cast<int>(image.height));
  } catch (std::exception const& error) {
    throw DataError(fmt::format("{} cannot be encoded ({}), check the map's size", path, error.what()));
  }
  write_atomically(path, stream.bytes());
}

}  // namespace duoflow::data
