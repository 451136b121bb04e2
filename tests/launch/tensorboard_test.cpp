// What TensorBoard's own reader, which checks every record's checksums, finds in the files.
#include "launch/tensorboard.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {

nlohmann::json read_events(std::filesystem::path const& folder) {
  auto const command = fmt::format("{0}/.venv/bin/python {0}/tests/launch/read_events.py {1} 2>{1}/errors",
                                   DUOFLOW_SOURCE_DIR, folder.string());
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> const pipe(popen(command.c_str(), "r"), pclose);
  std::string text;
  std::array<char, 4096> part{};
  while (auto const got = std::fread(part.data(), 1, part.size(), pipe.get())) text.append(part.data(), got);
  EXPECT_TRUE(nlohmann::json::accept(text)) << file_text(folder / "errors") << "Is .venv the full set-up's?";
  return nlohmann::json::parse(text, nullptr, false);
}

TEST(TensorBoardTest, TensorBoardReadsTagsStepsAndValues) {
  ScratchFolder folder;
  std::string const picture("\x89PNG\0\r\n\xff", 8);
  {
    TensorBoardWriter writer(folder.path() / "run", 0);
    for (std::int64_t step = 1; step <= 3; ++step)
      writer.scalar("velocity_loss", step, 0.1f * static_cast<float>(step));
    writer.scalar("lr", std::int64_t{1} << 40, -1e-30);
    writer.image("rendered", 7, picture, 16, 24);
    writer.image("empty", 0, "", 0, 0);
  }
  auto const events = read_events(folder.path() / "run");
  nlohmann::json const loss = {{1, 0.1f}, {2, 0.1f * 2.0f}, {3, 0.1f * 3.0f}};
  EXPECT_EQ(events["scalars"]["velocity_loss"], loss);
  EXPECT_EQ(events["scalars"]["lr"], nlohmann::json::parse("[[1099511627776, -1.0000000031710769e-30]]"));
  EXPECT_EQ(events["images"]["rendered"], nlohmann::json::parse(R"([[7, 16, 24, "89504e47000d0aff"]])"));
  EXPECT_EQ(events["images"]["empty"], nlohmann::json::parse(R"([[0, 0, 0, ""]])"));
}

TEST(TensorBoardTest, AResumeSupersedesThePointsBeyondItsCheckpoint) {
  ScratchFolder folder;
  for (int const resumed_at : {0, 20, 10}) {  // each goes 20 steps on; the last has an older checkpoint
    TensorBoardWriter writer(folder.path(), resumed_at);
    for (int step = resumed_at + 10; step <= resumed_at + 20; step += 10) writer.scalar("loss", step, resumed_at);
    writer.scalar(fmt::format("only_{}", resumed_at), resumed_at + 20, 1);
  }
  auto const events = read_events(folder.path());
  EXPECT_EQ(events["scalars"]["loss"], nlohmann::json::parse("[[10, 0.0], [20, 10.0], [30, 10.0]]"));
  EXPECT_EQ(events["scalars"]["only_20"], nlohmann::json::array());  // its step 40 is beyond 10
}

TEST(TensorBoardTest, ANewFileComesAfterThoseOfALaterClock) {
  ScratchFolder folder;
  std::ofstream(folder.path() / "events.out.tfevents.9000000000.elsewhere.1");
  TensorBoardWriter const writer(folder.path(), 0);
  EXPECT_EQ(writer.path().filename().string().substr(0, 30), "events.out.tfevents.9000000001");
}

TEST(TensorBoardTest, FlushPutsAllRecordsInTheFile) {
  ScratchFolder folder;
  TensorBoardWriter writer(folder.path(), 0);
  auto const before = std::filesystem::file_size(writer.path());
  writer.scalar("a", 1, NAN);
  writer.flush();
  EXPECT_GT(std::filesystem::file_size(writer.path()), before);
}

TEST(TensorBoardTest, ErrorsNameTheFile) {
  ScratchFolder folder;
  std::ofstream(folder.path() / "file");
  EXPECT_THROW(TensorBoardWriter(folder.path() / "file", 0), std::exception);
}

}  // namespace
}  // namespace duoflow::launch
