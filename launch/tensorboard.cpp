#include "launch/tensorboard.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include <fmt/format.h>
#include <protozero/pbf_writer.hpp>

namespace duoflow::launch {

namespace {

// Field numbers of tensorboard/compat/proto/{event,summary}.proto.
namespace event {
enum : protozero::pbf_tag_type { wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7 };
}
namespace session_log {
enum : protozero::pbf_tag_type { status = 1 };
constexpr int status_start = 1;
}  // namespace session_log
namespace summary {
enum : protozero::pbf_tag_type { value = 1 };
}
namespace value {
enum : protozero::pbf_tag_type { tag = 1, simple_value = 2, image = 4 };
}
namespace image {
enum : protozero::pbf_tag_type { height = 1, width = 2, colorspace = 3, encoded = 4 };
constexpr int rgb = 3;
}  // namespace image

// CRC-32C (Castagnoli), reflected, one table.
constexpr auto crc_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    auto crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    table[i] = crc;
  }
  return table;
}();

std::uint32_t crc32c(std::string_view bytes) {
  std::uint32_t crc = ~0u;
  for (char const byte : bytes) crc = (crc >> 8) ^ crc_table[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  return ~crc;
}

// TFRecord stores checksums turned and shifted, since a plain one over data that holds its own checksum is weak.
std::uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

template <typename Integer>
std::string little_endian(Integer number) {
  static_assert(std::endian::native == std::endian::little);
  std::string bytes(sizeof number, '\0');
  std::memcpy(bytes.data(), &number, sizeof number);
  return bytes;
}

double wall_time_s() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

constexpr std::string_view prefix = "events.out.tfevents.";

// The number after the prefix; 0 for other files.
std::int64_t file_time(std::string const& name) {
  std::int64_t seconds = 0;
  if (name.starts_with(prefix)) std::from_chars(name.data() + prefix.size(), name.data() + name.size(), seconds);
  return seconds;
}

// TensorBoard reads a folder's files in the order of their names, so a new one has a later time than all that are
// there, whatever the clock says.
std::filesystem::path new_file_name(std::filesystem::path const& directory) {
  auto seconds = static_cast<std::int64_t>(wall_time_s());
  for (auto const& entry : std::filesystem::directory_iterator(directory)) {
    seconds = std::max(seconds, file_time(entry.path().filename().string()) + 1);
  }
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '-';
  return directory / fmt::format("{}{:010}.{}.{}", prefix, seconds, host.data(), getpid());
}

std::runtime_error trouble(std::filesystem::path const& path, char const* what) {
  return std::runtime_error(
      fmt::format("{}: cannot {} the TensorBoard file ({}); free space or choose another run folder.", path.string(),
                  what, std::generic_category().message(errno)));
}

std::string event_at(std::int64_t step) {
  std::string bytes;
  protozero::pbf_writer writer(bytes);
  writer.add_double(event::wall_time, wall_time_s());
  writer.add_int64(event::step, step);
  return bytes;
}

}  // namespace

TensorBoardWriter::TensorBoardWriter(std::filesystem::path const& directory, std::int64_t keep_through_step) {
  std::filesystem::create_directories(directory);
  path_ = new_file_name(directory);
  file_.reset(std::fopen(path_.c_str(), "wxe"));
  if (!file_) throw trouble(path_, "create");
  auto version = event_at(0);
  protozero::pbf_writer(version).add_string(event::file_version, "brain.Event:2");
  write_record(version);

  // A session that starts at step s supersedes all points from s on.
  std::string session;
  protozero::pbf_writer(session).add_enum(session_log::status, session_log::status_start);
  auto start = event_at(keep_through_step + 1);
  protozero::pbf_writer(start).add_message(event::session_log, session);
  write_record(start);
  flush();
}

void TensorBoardWriter::scalar(std::string_view tag, std::int64_t step, double number) {
  std::string bytes;
  protozero::pbf_writer writer(bytes);
  writer.add_string(value::tag, tag.data(), tag.size());
  writer.add_float(value::simple_value, static_cast<float>(number));
  write_summary(step, bytes);
}

void TensorBoardWriter::image(std::string_view tag, std::int64_t step, std::string_view png, int height, int width) {
  std::string picture;
  protozero::pbf_writer picture_writer(picture);
  picture_writer.add_int32(image::height, height);
  picture_writer.add_int32(image::width, width);
  picture_writer.add_int32(image::colorspace, image::rgb);
  picture_writer.add_bytes(image::encoded, png.data(), png.size());
  std::string bytes;
  protozero::pbf_writer writer(bytes);
  writer.add_string(value::tag, tag.data(), tag.size());
  writer.add_message(value::image, picture);
  write_summary(step, bytes);
}

void TensorBoardWriter::flush() {
  if (std::fflush(file_.get()) != 0) throw trouble(path_, "write");
}

// The summary's one value as an event.
void TensorBoardWriter::write_summary(std::int64_t step, std::string const& summary_value) {
  std::string values;
  protozero::pbf_writer(values).add_message(summary::value, summary_value);
  auto bytes = event_at(step);
  protozero::pbf_writer(bytes).add_message(event::summary, values);
  write_record(bytes);
}

void TensorBoardWriter::write_record(std::string const& bytes) {
  auto const length = little_endian(static_cast<std::uint64_t>(bytes.size()));
  auto const frame = length + little_endian(masked_crc(length)) + bytes + little_endian(masked_crc(bytes));
  if (std::fwrite(frame.data(), 1, frame.size(), file_.get()) != frame.size()) throw trouble(path_, "write");
}

}  // namespace duoflow::launch
