#include "launch/progress.h"

#include <gtest/gtest.h>

#include <cmath>

#include "launch/logging.h"
#include "tests/launch/captured_stderr.h"
#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {

TEST(ProgressTest, TextHasStepLossSpeedAndTimeLeft) {
  EXPECT_EQ(progress_text(120, 2000, 0.12344, 52.14, "psnr 21.30", 725),
            "step 120/2000  6%  loss 0.1234  52.1 samples/s  psnr 21.30  12m05s left");
  EXPECT_EQ(progress_text(0, 0, 1, 2, "", NAN), "step 0/0  loss 1  2 samples/s");
  EXPECT_EQ(progress_text(1, 3, NAN, INFINITY, "", 0), "step 1/3  33%  loss -  - samples/s  0s left");
}

TEST(ProgressTest, DurationsAreRoundedToTheirLastUnit) {
  EXPECT_EQ(duration_text(-1), "0s");
  EXPECT_EQ(duration_text(59.4), "59s");
  EXPECT_EQ(duration_text(59.6), "1m00s");
  EXPECT_EQ(duration_text(3599.4), "59m59s");
  EXPECT_EQ(duration_text(3600), "1h00m");
  EXPECT_EQ(duration_text(3600 + 59 * 60 + 31), "2h00m");
  EXPECT_EQ(duration_text(23 * 3600 + 59 * 60 + 31), "1d00h");
  EXPECT_EQ(duration_text(2 * 86400 + 4 * 3600), "2d04h");
}

TEST(ProgressTest, TimeLeftFollowsTheRecentSpeed) {
  CapturedStderr captured;
  start_logging(0, 1);
  Progress progress(1000, 500);  // resumed: the first 500 steps took no time of this process
  auto now = std::chrono::steady_clock::now();
  progress.update(500, 1, 1, "", now);
  EXPECT_EQ(captured.text().find("left"), std::string::npos);
  for (int i = 1; i <= 2; ++i) progress.update(500 + 10 * i, 1, 1, "", now += std::chrono::seconds(100));
  auto text = captured.text();
  EXPECT_NE(text.find("  1h20m left\n"), std::string::npos) << text;  // 480 steps of 10 s
  for (int i = 3; i <= 30; ++i) progress.update(500 + 10 * i, 1, 1, "", now += std::chrono::seconds(10));
  text = captured.text();
  EXPECT_NE(text.find("  3m20s left\n"), std::string::npos) << text;  // 200 steps of 1 s
}

TEST(ProgressTest, FilesGetPlainLines) {
  CapturedStderr captured;
  start_logging(0, 1);
  Progress progress(10, 0);
  progress.update(0, 0.5, 2);
  progress.finish();
  EXPECT_EQ(captured.text().substr(20), "info: step 0/10  0%  loss 0.5  2 samples/s\n");
}

TEST(ProgressTest, TerminalsGetOneRewrittenLineAndTheFileAllOfThem) {
  ScratchFolder folder;
  CapturedStderr captured(80);
  start_logging(0, 1);
  log_to_file(folder.path() / "log.txt");
  {
    Progress progress(10, 0);
    progress.update(0, 0.5, 2);
    progress.update(0, 0.25, 2);
  }
  EXPECT_EQ(captured.text(),
            "\r\033[Kstep 0/10  0%  loss 0.5  2 samples/s\r\033[Kstep 0/10  0%  loss 0.25  2 samples/s\r\033[K");
  auto const text = file_text(folder.path() / "log.txt");
  EXPECT_NE(text.find(" info: step 0/10  0%  loss 0.5  2 samples/s\n"), std::string::npos) << text;
  EXPECT_NE(text.find(" info: step 0/10  0%  loss 0.25  2 samples/s\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace duoflow::launch
