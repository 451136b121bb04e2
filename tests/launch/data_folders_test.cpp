#include "launch/data_folders.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "launch/config.h"
#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {

std::string refusal_of(std::vector<std::string> const& texts) {
  try {
    parse_data_folders(texts);
  } catch (ConfigError const& error) {
    return error.what();
  }
  return "no error";
}

void expect_refusal(std::vector<std::string> const& texts, std::vector<std::string> const& parts) {
  auto const message = refusal_of(texts);
  for (auto const& part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << " is not in: " << message;
}

TEST(DataFoldersTest, WeightsAreExactDecimals) {
  auto const folders = parse_data_folders({"a=0.7", "b/c=2", "d=x=.000000001", "e=999999.999999999"});
  ASSERT_EQ(folders.size(), 4u);
  EXPECT_EQ(folders[0].path, "a");
  EXPECT_EQ(folders[0].weight, 700'000'000u);
  EXPECT_EQ(folders[1].path, "b/c");
  EXPECT_EQ(folders[1].weight, 2'000'000'000u);
  EXPECT_EQ(folders[2].path, "d=x");
  EXPECT_EQ(folders[2].weight, 1u);
  EXPECT_EQ(folders[3].weight, 999'999'999'999'999u);
  EXPECT_EQ(joined_paths(folders), "a + b/c + d=x + e");
}

TEST(DataFoldersTest, FoldersWithoutWeightStandAsTheyAre) {
  auto const folders = parse_data_folders({"a", "b"});
  EXPECT_EQ(folders[0].weight, 0u);
  EXPECT_EQ(folders[1].path, "b");
  ScratchFolder const scratch;
  auto const odd = (scratch.path() / "lr=3").string();
  std::filesystem::create_directories(odd);
  EXPECT_EQ(parse_data_folders({odd}).front().path, odd);  // it exists: no weight is meant
  EXPECT_EQ(parse_data_folders({odd + "=2"}).front().path, odd);
}

TEST(DataFoldersTest, SenselessWeightsAreErrors) {
  for (std::string const weight : {"", "0", "0.0", "-1", "x", "1e3", "1.2.3", ".", "1234567", "0.1234567891", " 1"})
    expect_refusal({"some=" + weight}, {"--data some=" + weight, "FOLDER=WEIGHT"});
  expect_refusal({"=3"}, {"--data =3"});
  expect_refusal({"a=1", "b"}, {"--data a=1", "--data b", "weight"});
  expect_refusal({"a", "b=1"}, {"--data a", "--data b=1"});
  expect_refusal({"a=1", "./a=2"}, {"./a", "twice"});
}

}  // namespace
}  // namespace duoflow::launch
