#include "launch/metrics_log.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <nlohmann/json.hpp>

#include "launch/logging.h"
#include "tests/launch/captured_stderr.h"
#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {

class MetricsLogTest : public ::testing::Test {
 protected:
  MetricsLogTest() { start_logging(0, 1); }

  void put(std::string const& text) const { std::ofstream(path_) << text; }
  std::string reopened(std::int64_t keep_through_step) const {
    MetricsLog log(path_, keep_through_step);
    return file_text(path_);
  }

  ScratchFolder folder_;
  std::filesystem::path path_ = folder_.path() / "metrics.jsonl";
  CapturedStderr captured_;
};

TEST_F(MetricsLogTest, LinesAreInTheFileWhenWriteReturnsAndKeepTheirOrderOfKeys) {
  MetricsLog log(path_, 0);
  log.write({{"step", 1}, {"loss", 0.5}, {"a", true}});
  EXPECT_EQ(file_text(path_), "{\"step\":1,\"loss\":0.5,\"a\":true}\n");
  log.write({{"step", 2}});
  EXPECT_EQ(file_text(path_), "{\"step\":1,\"loss\":0.5,\"a\":true}\n{\"step\":2}\n");
}

TEST_F(MetricsLogTest, DoublesAndFloatsRoundTrip) {
  std::vector<std::uint64_t> bits(2000, 12345);
  for (std::size_t i = 1; i < bits.size(); ++i) bits[i] = bits[i - 1] * 6364136223846793005u + 1442695040888963407u;
  auto const number = [](std::uint64_t b) { return std::bit_cast<double>(b); };
  auto const single = [](std::uint64_t b) { return std::bit_cast<float>(static_cast<std::uint32_t>(b >> 32)); };
  MetricsLog log(path_, 0);
  for (auto const b : bits) log.write({{"step", 1}, {"double", number(b)}, {"float", single(b)}});

  std::ifstream file(path_);
  std::string text;
  for (auto const b : bits) {
    ASSERT_TRUE(std::getline(file, text));
    auto const line = nlohmann::json::parse(text);
    if (std::isfinite(number(b))) {
      ASSERT_EQ(std::bit_cast<std::uint64_t>(line["double"].get<double>()), b);
    }
    if (std::isfinite(single(b))) {
      ASSERT_EQ(line["float"].get<double>(), static_cast<double>(single(b)));
    }
  }
}

TEST_F(MetricsLogTest, NonFiniteNumbersAreNull) {
  MetricsLog log(path_, 0);
  log.write({{"step", 1}, {"a", NAN}, {"b", -INFINITY}, {"c", std::numeric_limits<float>::quiet_NaN()}});
  EXPECT_EQ(file_text(path_), "{\"step\":1,\"a\":null,\"b\":null,\"c\":null}\n");
}

TEST_F(MetricsLogTest, LinesBeyondTheCheckpointAreDropped) {
  put("{\"step\":10}\n{\"step\":20,\"loss\":0.10000000149011612}\n{\"step\":30}\n{\"step\":40}\n");
  EXPECT_EQ(reopened(20), "{\"step\":10}\n{\"step\":20,\"loss\":0.10000000149011612}\n");
  EXPECT_NE(captured_.text().find("dropped 2 line(s) of steps beyond 20"), std::string::npos);
  EXPECT_EQ(reopened(0), "");
}

TEST_F(MetricsLogTest, ALastLineCutShortIsDropped) {
  put("{\"step\":10}\n{\"step\":20,\"lo");
  EXPECT_EQ(reopened(20), "{\"step\":10}\n");
  put("{\"step\":10}\n{\"step\":20}");  // only its end is missing
  EXPECT_EQ(reopened(20), "{\"step\":10}\n{\"step\":20}\n");
}

TEST_F(MetricsLogTest, LinesThatAreNoRecordAreDroppedAloud) {
  put(std::string("{\"step\":10}\n\0\0\0\n[1]\n{\"loss\":1}\n\n{\"step\":20}\n", 44));
  EXPECT_EQ(reopened(20), "{\"step\":10}\n{\"step\":20}\n");
  EXPECT_NE(captured_.text().find("warning: " + path_.string() + ": dropped 4 line(s)"), std::string::npos);
}

TEST_F(MetricsLogTest, AFileThatHoldsNothingToDropIsLeftAlone) {
  put("{\"step\":10}\n");
  auto const before = std::filesystem::last_write_time(path_);
  EXPECT_EQ(reopened(10), "{\"step\":10}\n");
  EXPECT_EQ(std::filesystem::last_write_time(path_), before);
  EXPECT_EQ(captured_.text(), "");
}

TEST_F(MetricsLogTest, ErrorsNameTheFile) {
  auto const path = folder_.path() / "missing" / "metrics.jsonl";
  try {
    MetricsLog log(path, 0);
    FAIL();
  } catch (std::runtime_error const& error) {
    EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
  }
  MetricsLog full("/dev/full", 0);
  EXPECT_THROW(full.write({{"step", 1}}), std::runtime_error);
}

}  // namespace
}  // namespace duoflow::launch
