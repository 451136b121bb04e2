#include "model/reference_checkpoint/zip_archive.h"

#include <gtest/gtest.h>

#include "tests/fuzz/bytes.h"
#include "tests/model/reference_checkpoint/bytes_in_memory.h"

namespace duoflow::model::test {
namespace {

std::string number(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text.push_back(static_cast<char>(value >> (8 * i) & 0xff));
  return text;
}

// One stored entry. zip64: sizes and offset in the extra field, as in files of more than 4 GiB.
std::string zip_of(std::string const& name, std::string const& data, bool zip64, std::string const& comment = "") {
  auto const crc = crc32(data.data(), data.size());
  auto const size32 = zip64 ? 0xffffffffu : data.size();
  std::string file = number(0x04034b50, 4) + number(45, 2) + number(0, 8) + number(crc, 4) + number(size32, 4) +
                     number(size32, 4) + number(name.size(), 2) + number(3, 2) + name + "pad" + data;
  auto const directory = file.size();
  auto const extra = zip64
                         ? number(1, 2) + number(24, 2) + number(data.size(), 8) + number(data.size(), 8) + number(0, 8)
                         : std::string();
  file += number(0x02014b50, 4) + number(45, 2) + number(45, 2) + number(0, 8) + number(crc, 4) + number(size32, 4) +
          number(size32, 4) + number(name.size(), 2) + number(extra.size(), 2) + number(0, 2) + number(0, 8) +
          number(zip64 ? 0xffffffffu : 0, 4) + name + extra;
  auto const bytes = file.size() - directory, end64 = file.size();
  if (zip64)
    file += number(0x06064b50, 4) + number(44, 8) + number(45, 2) + number(45, 2) + number(0, 8) + number(1, 8) +
            number(1, 8) + number(bytes, 8) + number(directory, 8) + number(0x07064b50, 4) + number(0, 4) +
            number(end64, 8) + number(1, 4);
  return file + number(0x06054b50, 4) + number(0, 4) + number(1, 2) + number(1, 2) +
         number(zip64 ? 0xffffffffu : bytes, 4) + number(zip64 ? 0xffffffffu : directory, 4) +
         number(comment.size(), 2) + comment;
}

std::string archive_error(std::string const& bytes) {
  return format_error([&] { ZipArchive{BytesInMemory(bytes)}; });
}

TEST(ZipArchiveTest, TheCheckSumIsTheOneOfTheStandard) {
  EXPECT_EQ(crc32("123456789", 9), 0xcbf43926u);
  EXPECT_EQ(crc32("", 0), 0u);
  std::string const text = "The quick brown fox jumps over the lazy dog";
  EXPECT_EQ(crc32(text.data(), text.size()), 0x414fa339u);
}

TEST(ZipArchiveTest, AnEntryIsReadFromBothFormsOfTheFormat) {
  for (bool const zip64 : {false, true}) {
    BytesInMemory const source(zip_of("a/data.pkl", "some bytes", zip64, "a comment"));
    ZipArchive const archive(source);
    auto const* entry = archive.find("a/data.pkl");
    ASSERT_NE(entry, nullptr);
    ASSERT_EQ(entry->bytes, 10u);
    std::string data(10, ' ');
    archive.read(*entry, data.data());
    EXPECT_EQ(data, "some bytes");
    EXPECT_EQ(archive.find("a"), nullptr);
  }
}

TEST(ZipArchiveTest, DataThatChangedAreFound) {
  auto file = zip_of("a", "some bytes", false);
  file[file.find("bytes")] ^= 1;
  BytesInMemory const source(file);
  ZipArchive const archive(source);
  std::string data(10, ' ');
  EXPECT_NE(format_error([&] { archive.read(archive.entries()[0], data.data()); }).find("a has CRC"),
            std::string::npos);
}

TEST(ZipArchiveTest, ACompressedEntryIsNamed) {
  auto file = zip_of("a", "some bytes", false);
  file[file.find("\x50\x4b\x01\x02") + 10] = 8;
  EXPECT_NE(archive_error(file).find("a is compressed"), std::string::npos);
}

TEST(ZipArchiveTest, EveryCutAndEveryChangedByteIsAnErrorOrHarmless) {
  for (bool const zip64 : {false, true}) {
    auto const file = zip_of("a/data.pkl", "some bytes", zip64);
    for (std::size_t bytes = 0; bytes < file.size(); ++bytes) EXPECT_NE(archive_error(file.substr(0, bytes)), "") << bytes;
    for (std::size_t i = 0; i < file.size(); ++i)
      for (int const change : {1, 0x80, 0xff}) {
        auto changed = file;
        changed[i] = static_cast<char>(changed[i] ^ change);
        format_error([&] {
          BytesInMemory const source(changed);
          ZipArchive const archive(source);
          for (auto const& entry : archive.entries()) {
            if (entry.bytes > 1000) throw FormatError("too large for this file");
            std::string data(entry.bytes, ' ');
            archive.read(entry, data.data());
          }
        });
      }
  }
}

// 100 entries that are all the same 1000 bytes would be 100,000 in memory.
TEST(ZipArchiveTest, EntriesThatShareTheirBytesAreAnError) {
  std::vector<std::pair<std::string, std::string>> entries = {{"data", std::string(1000, 'x')}};
  for (int i = 0; i < 99; ++i) entries.emplace_back("e" + std::to_string(i), "");
  auto file = fuzz::zip_of_entries(entries);
  EXPECT_EQ(archive_error(file), "");
  auto const table = file.find("\x50\x4b\x01\x02");
  auto const first = file.substr(table + 16, 12) + file.substr(table + 42, 4);
  for (auto at = file.find("\x50\x4b\x01\x02", table + 1); at != std::string::npos;
       at = file.find("\x50\x4b\x01\x02", at + 1)) {
    file.replace(at + 16, 12, first.substr(0, 12));
    file.replace(at + 42, 4, first.substr(12));
  }
  EXPECT_NE(archive_error(file).find("more bytes than the file has"), std::string::npos);
}

TEST(ZipArchiveTest, ASizeBeyondTheFileIsAnErrorBeforeMemoryIsTaken) {
  auto file = zip_of("a", "some bytes", true);
  auto const size = file.rfind(number(10, 8) + number(10, 8));
  file.replace(size, 8, number(std::uint64_t{1} << 50, 8));
  EXPECT_NE(archive_error(file).find("more bytes than the file has"), std::string::npos);
}

TEST(ZipArchiveTest, TorchsFormatBeforeVersion1_6IsNamed) {
  auto const said = archive_error("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e\x80\x02M\xe9\x03.");
  EXPECT_NE(said.find("before version 1.6"), std::string::npos);
  EXPECT_NE(said.find("torch.save(torch.load("), std::string::npos);
}

TEST(ZipArchiveTest, AFileThatIsNoZipIsSaidToBeNone) {
  for (std::string const text : {"", "P", "some text that is longer than the smallest archive"})
    EXPECT_NE(archive_error(text).find("not a zip archive"), std::string::npos) << text;
}

}  // namespace
}  // namespace duoflow::model::test
