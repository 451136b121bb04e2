#include "dist/checkpoint/file_io.h"

#include <sys/stat.h>

#include <cerrno>

#include "tests/dist/checkpoint/checkpoint_fixture.h"

namespace duoflow::dist {
namespace {

TEST(FileIoTest, ParentFolderIsWhatDirnamePrints) {
  EXPECT_EQ(parent_folder("a/b"), "a");
  EXPECT_EQ(parent_folder("a/b/"), "a");
  EXPECT_EQ(parent_folder("/a"), "/");
  EXPECT_EQ(parent_folder("/"), "/");
  EXPECT_EQ(parent_folder("a"), ".");
}

TEST(FileIoTest, FoldersAreMadeWithTheirParentsAndMayExist) {
  TemporaryFolder const folder;
  make_folders(folder / "a/b/c");
  make_folders(folder / "a/b/c/");
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b/c"));
  spill(folder / "file", "");
  EXPECT_TRUE(contains(checkpoint_error([&] { make_folders(folder / "file/x"); }), "cannot make folder"));
}

TEST(FileIoTest, TextIsReplacedAsAWhole) {
  TemporaryFolder const folder;
  replace_text_file(folder / "t", folder / "t.tmp", "one");
  replace_text_file(folder / "t", folder / "t.tmp", "two");
  EXPECT_EQ(read_text_file(folder / "t"), "two");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"t"});
}

TEST(FileIoTest, ErrorsNamePathCallAndReason) {
  TemporaryFolder const folder;
  auto const message = checkpoint_error([&] { read_text_file(folder / "missing"); });
  EXPECT_TRUE(contains(message, folder / "missing") && contains(message, "cannot open (No such file"));
  EXPECT_TRUE(contains(checkpoint_error([&] { rename_path(folder / "x", folder / "y"); }), "errno 2"));
  EXPECT_TRUE(contains(checkpoint_error([&] { sync_folder(folder / "x"); }), "errno 2"));
  if (std::filesystem::exists("/dev/full")) {
    EXPECT_TRUE(contains(checkpoint_error([] { write_text_file("/dev/full", "x"); }), "cannot write (No space left"));
  }
}

TEST(FileIoTest, ReadingBeyondTheEndIsAnError) {
  TemporaryFolder const folder;
  spill(folder / "f", "abc");
  InputFile file(folder / "f");
  EXPECT_EQ(file.size(), 3u);
  std::string text(4, ' ');
  EXPECT_TRUE(contains(checkpoint_error([&] { file.read(text.data(), 4); }), "ends after 3 bytes, 1 more expected"));
}

TEST(FileIoTest, APipeIsAnErrorAndNotWaitedFor) {
  TemporaryFolder const folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(contains(checkpoint_error([&] { InputFile file(folder / "pipe"); }), "pipe: cannot read as a file"));
}

// A file with a hole has any size, and takes no room on the disk.
TEST(FileIoTest, ATextLargerThanAnyIsNotReadWhole) {
  TemporaryFolder const folder;
  spill(folder / "t", "{");
  std::filesystem::resize_file(folder / "t", (std::uintmax_t{1} << 40));
  EXPECT_TRUE(contains(checkpoint_error([&] { read_text_file(folder / "t"); }), "1099511627776 bytes"));
}

TEST(FileIoTest, SwapExchangesTwoFolders) {
  TemporaryFolder const folder;
  make_folders(folder / "a");
  make_folders(folder / "b");
  spill(folder / "a/x", "1");
  swap_folders(folder / "a", folder / "b", folder / "c");
  EXPECT_EQ(slurp(folder / "b/x"), "1");
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(
      contains(checkpoint_error([&] { swap_folders(folder / "a", folder / "z", folder / "c"); }), "cannot swap in"));
}

TEST(FileIoTest, SwapWorksWithoutTheFileSystemsHelpAndUndoesAHalfDoneOne) {
  TemporaryFolder const folder;
  make_folders(folder / "a");
  make_folders(folder / "b");
  spill(folder / "a/x", "1");
  int calls = 0, failing = 0;
  set_fault_hook([&](FileOperation, std::string const&) { return ++calls == 1 ? EINVAL : calls == failing ? EIO : 0; });
  swap_folders(folder / "a", folder / "b", folder / "c");
  EXPECT_EQ(slurp(folder / "b/x"), "1");
  EXPECT_EQ(calls, 4);
  calls = 0;
  failing = 3;
  auto const message = checkpoint_error([&] { swap_folders(folder / "a", folder / "b", folder / "c"); });
  set_fault_hook(nullptr);
  EXPECT_TRUE(contains(message, "errno 5")) << message;
  EXPECT_EQ(slurp(folder / "b/x"), "1");
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"a", "b"}));
}

TEST(FileIoTest, RemovingAndListingWhatIsNotThereIsFine) {
  TemporaryFolder const folder;
  remove_tree(folder / "nothing");
  EXPECT_TRUE(list_folder(folder / "nothing").empty());
  spill(folder / "b", "");
  spill(folder / "a", "");
  EXPECT_EQ(list_folder(folder.path()), (std::vector<std::string>{"a", "b"}));
}

TEST(FileIoTest, FaultHookFailsAnOperationWithItsErrno) {
  TemporaryFolder const folder;
  set_fault_hook(
      [](FileOperation operation, std::string const&) { return operation == FileOperation::sync ? EIO : 0; });
  auto const message = checkpoint_error([&] { write_text_file(folder / "f", "x"); });
  set_fault_hook(nullptr);
  EXPECT_TRUE(contains(message, "cannot sync (Input/output error, errno 5)")) << message;
}

}  // namespace
}  // namespace duoflow::dist
