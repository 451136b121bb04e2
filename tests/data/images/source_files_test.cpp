#include "data/ingest/source_files.h"

#include <sys/stat.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "../sample_folders.h"
#include "data/folder_lock.h"
#include "data/ingest/scene_list.h"

namespace duoflow::data::testing {
namespace {

namespace fs = std::filesystem;

// One header block (GNU tar's field layout), its checksum right, and the data padded to whole blocks.
std::string member(std::string const& name, char type, std::string const& data, std::string const& link = "") {
  std::array<char, 512> block{};
  std::memcpy(block.data(), name.data(), std::min<std::size_t>(name.size(), 100));
  std::snprintf(block.data() + 100, 8, "%07o", 0644);
  std::snprintf(block.data() + 124, 12, "%011zo", data.size());
  block[156] = type;
  std::memcpy(block.data() + 157, link.data(), link.size());
  std::memcpy(block.data() + 257, "ustar", 6);
  std::memset(block.data() + 148, ' ', 8);
  unsigned sum = 0;
  for (char const c : block) { sum += static_cast<unsigned char>(c); }
  std::snprintf(block.data() + 148, 8, "%06o", sum);
  std::string out(block.begin(), block.end());
  out += data;
  out.append((512 - data.size() % 512) % 512, '\0');
  return out;
}

std::string tar_of(std::string const& members) { return members + std::string(1024, '\0'); }

TEST(TarIndexTest, MembersOfATarOfTheSystemAreReadInPlace) {
  TemporaryFolder const folder;
  std::string const longer = std::string(80, 'm') + "/" + std::string(70, 'n');  // beyond the field of 100 bytes
  fs::create_directories(folder / "set/deep/er");
  put_bytes(folder / "set/a.txt", "first");
  put_bytes(folder / "set/deep/er/b", std::string(1300, 'b'));
  fs::create_directories(folder / ("set/deep/" + std::string(80, 'm')));
  put_bytes(folder / ("set/deep/" + longer), "long");
  for (std::string const format : {"gnu", "posix", "ustar"}) {
    std::string const archive = folder / (format + ".tar");
    ASSERT_EQ(std::system(fmt::format("tar --format={} -C {} -cf {} ./set", format, folder.path(), archive).c_str()), 0);
    ASSERT_TRUE(is_archive(archive));
    TarIndex const index(archive);
    EXPECT_EQ(index.entries("set"), (std::vector<std::string>{"a.txt", "deep"})) << format;
    EXPECT_EQ(index.read("set/a.txt"), "first") << format;
    EXPECT_EQ(index.read("set/deep/er/b"), std::string(1300, 'b')) << format;
    EXPECT_EQ(index.read("set/deep/" + longer), "long") << format;
    EXPECT_TRUE(index.has_folder("set/deep"));
    EXPECT_FALSE(index.has_folder("set/de"));
    EXPECT_FALSE(index.has_file("set/deep"));
  }
}

TEST(TarIndexTest, WhatLeadsOutOrIsNoFileIsRefused) {
  TemporaryFolder const folder;
  std::string const archive = folder / "a.tar";
  std::vector<std::pair<std::string, std::string>> const cases{{member("../up", '0', "x"), "'../up' leads out"},
                                                               {member("a/../../up", '0', "x"), "leads out"},
                                                               {member("/etc/x", '0', "x"), "'/etc/x' leads out"},
                                                               {member("s", '2', "", "/etc/passwd"), "'s' is a link"},
                                                               {member("h", '1', "", "a"), "'h' is a link"},
                                                               {member("p", '6', ""), "special"}};
  for (auto const& [bytes, problem] : cases) {
    put_bytes(archive, tar_of(member("ok", '0', "1") + bytes));
    EXPECT_TRUE(says(data_error_of([&] { TarIndex const index(archive); }), {"a.tar", problem}));
  }
  put_bytes(archive, tar_of(member("x", '0', "old") + member("./x", '0', "new")));
  EXPECT_EQ(TarIndex(archive).read("x"), "new");
}

TEST(TarIndexTest, AHeaderOfAMegabyteIsNoName) {
  TemporaryFolder const folder;
  for (char const type : {'x', 'L'}) {
    put_bytes(folder / "a.tar", tar_of(member("long", type, std::string((1 << 20) + 1, 'n')) + member("a", '0', "")));
    EXPECT_TRUE(says(data_error_of([&] { TarIndex const index(folder / "a.tar"); }), {"a.tar", "1048577 bytes of header at byte 0"}));
  }
}

TEST(TarIndexTest, CutDamagedAndCompressedArchivesAreNamed) {
  TemporaryFolder const folder;
  auto const whole = tar_of(member("a", '0', std::string(700, 'a')) + member("b", '0', "b"));
  for (std::size_t const length : {std::size_t{0}, std::size_t{300}, std::size_t{600}, std::size_t{1536}, std::size_t{2048}, std::size_t{2560}}) {
    put_bytes(folder / "a.tar", whole.substr(0, length));
    EXPECT_TRUE(says(data_error_of([&] { TarIndex const index(folder / "a.tar"); }), {"a.tar", "cut short"})) << length;
  }
  put_bytes(folder / "a.tar", whole);
  flip_byte(folder / "a.tar", 1);
  EXPECT_TRUE(says(data_error_of([&] { TarIndex const index(folder / "a.tar"); }), {"a.tar", "checksum"}));
  put_bytes(folder / "a.tar.gz", "\x1f\x8b rest");
  ASSERT_TRUE(is_archive(folder / "a.tar.gz"));
  EXPECT_TRUE(says(data_error_of([&] { TarIndex const index(folder / "a.tar.gz"); }), {"a.tar.gz", "compressed with gzip"}));
}

TEST(SourceFilesTest, PathsBelowAnArchiveNameItsMembers) {
  TemporaryFolder const folder;
  std::string const archive = folder / "a.tar";
  put_bytes(archive, tar_of(member("set/x", '0', "in")));
  put_bytes(folder / "x", "out");
  SourceFiles files;
  files.open_archive(archive);
  EXPECT_EQ(files.read(archive + "/set/./x"), "in");
  EXPECT_EQ(files.read(folder / "x"), "out");
  EXPECT_TRUE(files.is_folder(archive));
  EXPECT_TRUE(files.is_folder(archive + "/set"));
  EXPECT_FALSE(files.is_file(archive + "/y"));
  EXPECT_FALSE(files.in_archive(archive + "2/set/x"));
  EXPECT_TRUE(says(data_error_of([&] { files.read(archive + "/y"); }), {"a.tar", "'y'"}));
}

TEST(SourceFilesTest, APipeIsRefusedAndNotWaitedFor) {
  TemporaryFolder const folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(says(data_error_of([&] { SourceFiles().read(folder / "pipe"); }), {"pipe", "no regular file"}));
  EXPECT_TRUE(says(data_error_of([&] { SourceFiles().read(folder.path()); }), {folder.path(), "no regular file"}));
}

// A file with a hole has any size, and takes no room on the disk.
TEST(SourceFilesTest, AFileLargerThanAnyTextOrPictureIsNotReadWhole) {
  TemporaryFolder const folder;
  put_bytes(folder / "sparse", "{");
  fs::resize_file(folder / "sparse", (std::uintmax_t{4} << 30) + 1);
  EXPECT_TRUE(says(data_error_of([&] { SourceFiles().read(folder / "sparse"); }), {"sparse", "4294967297 bytes"}));
}

TEST(SceneListTest, OnlyRelativePathsThatLeadOutClimb) {
  for (auto const* path : {"..", "../x", "a/../../x", "./../x"}) EXPECT_TRUE(climbs(path)) << path;
  for (auto const* path : {"", "x", "a/../x", "a/..", "/../x", "..x/y", "/far/../x"}) EXPECT_FALSE(climbs(path)) << path;
}

TEST(SceneListTest, AListInAnArchiveNamesNothingOutsideOfIt) {
  TemporaryFolder const folder;
  put_bytes(folder / "a.tar", tar_of(member("full_list.txt", '0', "metadata/a.json\n../../etc/a.json\n")));
  SourceFiles files;
  IngestOptions options;
  options.scenes = {folder / "a.tar"};
  EXPECT_TRUE(says(data_error_of([&] { listed_scenes(files, options); }), {"full_list.txt", "../../etc/a.json", "out of the archive"}));
}

TEST(SourceFilesTest, AMovedFileIsFoundByItsLongestTail) {
  TemporaryFolder const folder;
  fs::create_directories(folder / "set/train/images/a");
  put_bytes(folder / "set/train/images/a/0.png", "x");
  SourceFiles const files;
  using Pair = std::pair<std::string, std::string>;
  EXPECT_EQ(files.moved("/far/away/set/train/images/a/0.png", folder / "set/train"), Pair("/far/away", folder.path()));
  EXPECT_EQ(files.moved("/far/train/images/a/0.png", folder / "set/train"), Pair("/far", folder / "set"));
  EXPECT_EQ(files.moved("/far/images/a/1.png", folder / "set/train"), std::nullopt);
}

TEST(FolderLockTest, ASecondWriterIsRefusedUntilTheFirstIsGone) {
  TemporaryFolder const folder;
  {
    FolderLock const first(folder / "out");
    EXPECT_TRUE(says(data_error_of([&] { FolderLock const second(folder / "out"); }), {"out is being written by process", "two writers"}));
  }
  EXPECT_FALSE(fs::exists(folder / "out")) << "made for the lock alone";
  FolderLock const after(folder / "out");
}

TEST(FolderLockTest, ACrashedWritersFileHoldsNoLock) {
  TemporaryFolder const folder;
  put_bytes(folder / "writer.lock", "process 1 on nowhere");
  { FolderLock const next(folder.path()); }
  EXPECT_TRUE(fs::exists(folder.path()));
  EXPECT_TRUE(folder.files().empty());
}

}  // namespace
}  // namespace duoflow::data::testing
