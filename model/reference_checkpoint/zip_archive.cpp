#include "model/reference_checkpoint/zip_archive.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include <fmt/format.h>

namespace duoflow::model {
namespace {

static_assert(std::endian::native == std::endian::little, "zip numbers are read as they lie");

constexpr std::uint32_t kEndRecord = 0x06054b50, kEndRecord64 = 0x06064b50, kEndLocator64 = 0x07064b50,
                        kDirectoryEntry = 0x02014b50, kLocalHeader = 0x04034b50;
constexpr std::size_t kEndRecordBytes = 22, kEndLocator64Bytes = 20, kEndRecord64Bytes = 56, kDirectoryEntryBytes = 46,
                      kLocalHeaderBytes = 30, kLongestComment = 0xffff;
constexpr std::uint16_t kZip64Extra = 1;
constexpr std::uint32_t kSeeExtra = 0xffffffff;  // the number is in the zip64 extra field

using Table = std::array<std::array<std::uint32_t, 256>, 8>;

// Eight tables: eight bytes a step, as these files are gigabytes long.
constexpr Table make_table() {
  Table table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xedb88320u : 0u);
    table[0][i] = value;
  }
  for (std::size_t k = 1; k < 8; ++k)
    for (std::size_t i = 0; i < 256; ++i) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];
  return table;
}
constexpr Table kTable = make_table();

template <class T>
T number_at(unsigned char const* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

[[noreturn]] void damaged(std::string const& what) {
  throw FormatError(fmt::format("{} (the file is damaged or was cut short); copy it again", what));
}

// What a file that is no zip is, as far as its first bytes tell.
[[noreturn]] void no_zip(ByteSource const& source) {
  std::array<unsigned char, 16> head{};
  auto const bytes = std::min<std::uint64_t>(source.size(), head.size());
  source.read(0, head.data(), static_cast<std::size_t>(bytes));
  // A pickled number that such files begin with, behind the two bytes of the pickle's protocol.
  constexpr std::array<unsigned char, 13> before_1_6 = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9,
                                                        0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};
  if (std::equal(before_1_6.begin(), before_1_6.end(), head.begin() + 2))
    throw FormatError(
        "the file is in torch's old format, of before version 1.6, which is a program rather than data; save it again: "
        "python -c \"import torch; torch.save(torch.load('OLD.pt', map_location='cpu', weights_only=True), "
        "'NEW.pt')\"");
  if (bytes >= 4 && number_at<std::uint32_t>(head.data()) == kLocalHeader) damaged("the zip archive has no end record");
  throw FormatError("the file is not a zip archive (what torch.save writes is one); give a .pt file");
}

}  // namespace

std::uint32_t crc32(void const* data, std::size_t bytes) {
  auto const* at = static_cast<unsigned char const*>(data);
  std::uint32_t crc = 0xffffffff;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    auto const low = number_at<std::uint32_t>(at) ^ crc, high = number_at<std::uint32_t>(at + 4);
    crc = kTable[7][low & 0xff] ^ kTable[6][low >> 8 & 0xff] ^ kTable[5][low >> 16 & 0xff] ^ kTable[4][low >> 24] ^
          kTable[3][high & 0xff] ^ kTable[2][high >> 8 & 0xff] ^ kTable[1][high >> 16 & 0xff] ^ kTable[0][high >> 24];
  }
  for (; bytes > 0; --bytes, ++at) crc = crc >> 8 ^ kTable[0][(crc ^ *at) & 0xff];
  return ~crc;
}

ZipArchive::ZipArchive(ByteSource const& source) : source_(source) { read_directory(find_directory()); }

ZipArchive::Directory ZipArchive::find_directory() const {
  auto const size = source_.size();
  if (size < kEndRecordBytes) no_zip(source_);
  auto const tail_bytes = static_cast<std::size_t>(std::min<std::uint64_t>(size, kEndRecordBytes + kLongestComment));
  std::vector<unsigned char> tail(tail_bytes);
  source_.read(size - tail_bytes, tail.data(), tail_bytes);
  auto at = static_cast<std::ptrdiff_t>(tail_bytes - kEndRecordBytes);
  while (at >= 0 && number_at<std::uint32_t>(tail.data() + at) != kEndRecord) --at;
  if (at < 0) no_zip(source_);
  auto const* end = tail.data() + at;
  Directory directory{number_at<std::uint32_t>(end + 16), number_at<std::uint32_t>(end + 12),
                      number_at<std::uint16_t>(end + 10)};
  auto const end_offset = size - tail_bytes + static_cast<std::uint64_t>(at);
  std::array<unsigned char, kEndRecord64Bytes> record{};
  if (end_offset >= kEndLocator64Bytes) {
    source_.read(end_offset - kEndLocator64Bytes, record.data(), kEndLocator64Bytes);
    if (number_at<std::uint32_t>(record.data()) == kEndLocator64) {
      auto const offset64 = number_at<std::uint64_t>(record.data() + 8);
      if (size < kEndRecord64Bytes || offset64 > size - kEndRecord64Bytes)
        damaged("the zip archive's end record lies outside it");
      source_.read(offset64, record.data(), kEndRecord64Bytes);
      if (number_at<std::uint32_t>(record.data()) != kEndRecord64) damaged("the zip archive has no zip64 end record");
      directory = {number_at<std::uint64_t>(record.data() + 48), number_at<std::uint64_t>(record.data() + 40),
                   number_at<std::uint64_t>(record.data() + 32)};
    }
  }
  if (directory.offset > size || directory.bytes > size - directory.offset ||
      directory.entries > directory.bytes / kDirectoryEntryBytes)
    damaged("the zip archive's table of contents lies outside it");
  return directory;
}

void ZipArchive::read_directory(Directory const& directory) {
  std::vector<unsigned char> table(static_cast<std::size_t>(directory.bytes));
  source_.read(directory.offset, table.data(), table.size());
  std::size_t at = 0;
  std::uint64_t left = source_.size();  // entries that share their bytes would unpack to more than the file holds
  for (std::uint64_t i = 0; i < directory.entries; ++i) {
    if (table.size() - at < kDirectoryEntryBytes || number_at<std::uint32_t>(table.data() + at) != kDirectoryEntry)
      damaged("the zip archive's table of contents ends early");
    auto const* fixed = table.data() + at;
    std::size_t const name = number_at<std::uint16_t>(fixed + 28), extra = number_at<std::uint16_t>(fixed + 30),
                      comment = number_at<std::uint16_t>(fixed + 32);
    if (table.size() - at - kDirectoryEntryBytes < name + extra + comment)
      damaged("the zip archive's table of contents ends early");
    Entry entry{std::string(reinterpret_cast<char const*>(fixed) + kDirectoryEntryBytes, name),
                number_at<std::uint32_t>(fixed + 24), number_at<std::uint32_t>(fixed + 42),
                number_at<std::uint32_t>(fixed + 16)};
    auto const method = number_at<std::uint16_t>(fixed + 10), flags = number_at<std::uint16_t>(fixed + 8);
    if (method != 0 || (flags & 1) != 0)
      throw FormatError(fmt::format(
          "{} is compressed or encrypted (torch.save stores as it is); unpack the file and save it again", entry.name));
    auto const* field = fixed + kDirectoryEntryBytes + name;
    for (auto const* const last = field + extra; last - field >= 4;) {
      auto const bytes = number_at<std::uint16_t>(field + 2);
      if (bytes > last - field - 4)
        damaged(fmt::format("the entry {} of the zip archive contradicts itself", entry.name));
      if (number_at<std::uint16_t>(field) == kZip64Extra) {  // only the numbers that did not fit, in this order
        auto const *next = field + 4, *const end = next + bytes;
        auto const take = [&](std::uint64_t& value) {
          if (end - next < 8) damaged(fmt::format("the entry {} of the zip archive contradicts itself", entry.name));
          value = number_at<std::uint64_t>(next);
          next += 8;
        };
        if (entry.bytes == kSeeExtra) take(entry.bytes);
        std::uint64_t packed = 0;
        if (number_at<std::uint32_t>(fixed + 20) == kSeeExtra) take(packed);
        if (entry.header_offset == kSeeExtra) take(entry.header_offset);
      }
      field += 4 + bytes;
    }
    if (entry.bytes > left)
      damaged(fmt::format("{} and the entries before it say more bytes than the file has", entry.name));
    left -= entry.bytes;
    at += kDirectoryEntryBytes + name + extra + comment;
    if (!by_name_.emplace(entry.name, entries_.size()).second)
      damaged(fmt::format("{} is twice in the zip archive", entry.name));
    entries_.push_back(std::move(entry));
  }
}

ZipArchive::Entry const* ZipArchive::find(std::string const& name) const {
  auto const found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

void ZipArchive::read(Entry const& entry, void* data) const {
  auto const size = source_.size();
  std::array<unsigned char, kLocalHeaderBytes> header{};
  if (size < kLocalHeaderBytes || entry.header_offset > size - kLocalHeaderBytes)
    damaged(fmt::format("{} lies outside the file", entry.name));
  source_.read(entry.header_offset, header.data(), header.size());
  if (number_at<std::uint32_t>(header.data()) != kLocalHeader) damaged(fmt::format("{} has no header", entry.name));
  auto const offset = entry.header_offset + kLocalHeaderBytes + number_at<std::uint16_t>(header.data() + 26) +
                      number_at<std::uint16_t>(header.data() + 28);
  if (offset > size || entry.bytes > size - offset) damaged(fmt::format("{} lies outside the file", entry.name));
  source_.read(offset, data, static_cast<std::size_t>(entry.bytes));
  auto const found = crc32(data, static_cast<std::size_t>(entry.bytes));
  if (found != entry.crc)
    damaged(fmt::format("{} has CRC {:08x}, {:08x} was stored with it", entry.name, found, entry.crc));
}

}  // namespace duoflow::model
