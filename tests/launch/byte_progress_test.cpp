#include "launch/byte_progress.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "launch/logging.h"
#include "tests/launch/captured_stderr.h"

namespace duoflow::launch {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(ByteProgressTest, TextHasBytesSpeedAndTimeLeft) {
  EXPECT_EQ(bytes_text(1'200'000'000, 4'800'000'000, 2), "1.20 of 4.80 GB  25%  600 MB/s  6s left");
  EXPECT_EQ(bytes_text(0, 0, 0), "0.00 of 0.00 GB  0 MB/s");
}

TEST(ByteProgressTest, FilesGetALineEveryTenSecondsAndOneAtTheEnd) {
  CapturedStderr captured;
  start_logging(0, 1);
  ByteProgress::Time const start{};
  ByteProgress progress("verify", start);
  for (int second = 1; second <= 20; ++second)
    progress.update(static_cast<std::uint64_t>(second) * 100'000'000, 2'000'000'000, start + seconds(second));
  progress.finish(start + seconds(20));
  auto const text = captured.text();
  for (auto const* line :
       {" info: verify: 1.00 of 2.00 GB  50%  100 MB/s  10s left\n",
        " info: verify: 2.00 of 2.00 GB  100%  100 MB/s  0s left\n", " info: verify: 2.00 GB in 20.0 s, 100 MB/s\n"})
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
}

TEST(ByteProgressTest, TerminalsGetOneRewrittenLine) {
  CapturedStderr captured(80);
  start_logging(0, 1);
  ByteProgress::Time const start{};
  ByteProgress progress("verify", start);
  progress.update(1'000'000, 4'000'000, start + milliseconds(100));  // too soon after the last
  progress.update(2'000'000, 4'000'000, start + milliseconds(500));
  EXPECT_EQ(captured.text(), "\r\033[Kverify: 0.00 of 0.00 GB  50%  4 MB/s  1s left");
}

}  // namespace
}  // namespace duoflow::launch
