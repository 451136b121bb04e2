#include "launch/logging.h"

#include <gtest/gtest.h>

#include "tests/launch/captured_stderr.h"
#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {

// The lines without their times, which are 20 characters: "2026-01-31 12:00:00 ".
std::string without_times(std::string const& text) {
  std::string result;
  for (std::size_t start = 0; start < text.size();) {
    auto const end = text.find('\n', start);
    result += text.substr(start + 20, end + 1 - start - 20);
    start = end + 1;
  }
  return result;
}

TEST(LoggingTest, OneRankIsNotNumbered) {
  CapturedStderr captured;
  start_logging(0, 1);
  log_info("a {} stays as it is");
  log_warning("b");
  log_error("c");
  EXPECT_EQ(without_times(captured.text()), "info: a {} stays as it is\nwarning: b\nerror: c\n");
}

TEST(LoggingTest, OtherRanksSayOnlyWarningsAndErrors) {
  CapturedStderr captured;
  start_logging(3, 8);
  log_info("a");
  log_warning("b");
  log_error("c");
  EXPECT_EQ(without_times(captured.text()), "[rank 3/8] warning: b\n[rank 3/8] error: c\n");
}

TEST(LoggingTest, FileAndFolderAreMadeByTheFirstLine) {
  ScratchFolder folder;
  auto const path = folder.path() / "run" / "log.txt";
  CapturedStderr captured;
  start_logging(0, 2);
  log_info("before");
  log_to_file(path);
  EXPECT_FALSE(std::filesystem::exists(path.parent_path()));
  log_info("after");
  log_info_file_only("quiet");
  EXPECT_EQ(without_times(file_text(path)), "[rank 0/2] info: after\n[rank 0/2] info: quiet\n");
  EXPECT_EQ(without_times(captured.text()), "[rank 0/2] info: before\n[rank 0/2] info: after\n");
}

TEST(LoggingTest, RanksAndRunsAppendToOneFile) {
  ScratchFolder folder;
  auto const path = folder.path() / "log.txt";
  CapturedStderr captured;
  for (int const rank : {0, 1}) {
    start_logging(rank, 2);
    log_to_file(path);
    log_info("a");
    log_error("b");
  }
  EXPECT_EQ(without_times(file_text(path)), "[rank 0/2] info: a\n[rank 0/2] error: b\n[rank 1/2] error: b\n");
}

TEST(LoggingTest, AFileThatCannotBeWrittenIsToldOnce) {
  ScratchFolder folder;
  CapturedStderr captured;
  start_logging(0, 1);
  log_to_file(folder.path());  // a folder is no file
  log_info("a");
  EXPECT_NE(captured.text().find(folder.path().string() + ": the log's lines are lost (Is a directory)"),
            std::string::npos);
  log_info("b");
  EXPECT_EQ(without_times(captured.text()), "info: b\n");
}

TEST(LoggingTest, OnceIsOncePerKey) {
  CapturedStderr captured;
  start_logging(0, 1);
  for (auto const* text : {"first", "second"}) {
    log_once(LogLevel::info, "key one", text);
    log_once(LogLevel::warning, "key two", text);
  }
  EXPECT_EQ(without_times(captured.text()), "info: first\nwarning: first\n");
}

TEST(LoggingTest, StatusStaysBelowLogLines) {
  CapturedStderr captured(80);
  start_logging(0, 1);
  ASSERT_TRUE(has_status_line());
  show_status("half");
  EXPECT_EQ(captured.text(), "\r\033[Khalf");
  log_info("a");
  auto const text = captured.text();
  EXPECT_EQ(text.substr(0, 4), "\r\033[K");
  EXPECT_EQ(without_times(text.substr(4, text.size() - 8)), "info: a\n");
  EXPECT_EQ(text.substr(text.size() - 4), "half");
  show_status("");
  EXPECT_EQ(captured.text(), "\r\033[K");
}

TEST(LoggingTest, StatusIsCutToTheTerminalsWidth) {
  CapturedStderr captured(10);
  start_logging(0, 1);
  show_status("0123456789abc");
  EXPECT_EQ(captured.text(), "\r\033[K012345678");
}

TEST(LoggingTest, StatusIsForTerminalsAndRankZero) {
  {
    CapturedStderr file;
    start_logging(0, 1);
    show_status("a");
    EXPECT_FALSE(has_status_line());
    EXPECT_EQ(file.text(), "");
  }
  CapturedStderr terminal(80);
  start_logging(1, 2);
  show_status("a");
  EXPECT_FALSE(has_status_line());
  EXPECT_EQ(terminal.text(), "");
}

}  // namespace
}  // namespace duoflow::launch
