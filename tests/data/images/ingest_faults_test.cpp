// What a scene's metadata and a list can have wrong, one clear line each; and the sources an ingest takes.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "data/images/image_io.h"
#include "data/shards/shard_writer.h"
#include "lvsm_folder.h"

namespace duoflow::data::testing {
namespace {

namespace fs = std::filesystem;

constexpr char const* kPose0 = "[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]";

IngestReport census(IngestOptions options) {
  options.dry_run = true;
  return ingest_lvsm(options);
}

struct Fault {
  std::string name, from, to;
  std::vector<std::string> words;
};

class CameraFaultTest : public ::testing::TestWithParam<Fault> {};

TEST_P(CameraFaultTest, IsOneLineThatNamesSceneAndFrame) {
  auto const& fault = GetParam();
  LvsmFolder const folder;
  folder.edit_metadata("cube_env_0", fault.from, fault.to);
  auto const report = census(folder.options());
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_EQ(report.problems[0].scene, "cube_env_0");
  EXPECT_EQ(report.problems[0].frame, 0);
  EXPECT_TRUE(says(report.problems[0].problem, fault.words));
  EXPECT_EQ(report.problems[0].problem.find('\n'), std::string::npos);
  EXPECT_EQ(report.scenes, 5);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, CameraFaultTest,
    ::testing::Values(Fault{"Mirrored", kPose0, "[[-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]", {"determinant -1", "mirrored"}},
                      Fault{"NotOrthonormal", kPose0, "[[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]", {"not orthonormal"}},
                      Fault{"NanInThePose", kPose0, "[[NaN, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]", {"pose entry (0,0) is nan"}},
                      Fault{"InfiniteFocalLength", "[10, 10, 4, 4]", "[Infinity, 10, 4, 4]", {"fx is nan", "finite"}},
                      Fault{"NoFocalLength", "[10, 10, 4, 4]", "[0, 10, 4, 4]", {"fx is 0", "positive"}},
                      Fault{"NegativeFocalLength", "[10, 10, 4, 4]", "[10, -10, 4, 4]", {"fy is -10", "positive"}},
                      Fault{"CentreOutsideThePicture", "[10, 10, 4, 4]", "[10, 10, 4, 8.5]", {"cy is 8.5", "0 to 8"}},
                      Fault{"NormalisedIntrinsics", "[10, 10, 4, 4]", "[1.25, 1.25, 0.5, 0.5]", {"looks normalised", "multiply by 8 x 8"}},
                      Fault{"ThreeIntrinsics", "[10, 10, 4, 4]", "[10, 4, 4]", {"fxfycxcy has 3 numbers"}},
                      Fault{"TwoRows", kPose0, "[[1, 0, 0, 0], [0, 1, 0, 0]]", {"w2c has 2 rows"}},
                      Fault{"NoPicture", "\"image_path\"", "\"path\"", {"no image_path"}},
                      Fault{"PictureOutsideTheFolder", "\"image_path\"", "\"image_path\": \"a/../../x.png\", \"was\"", {"a/../../x.png", "leads out of the scene's folder"}}),
    [](auto const& fault) { return fault.param.name; });

TEST(IngestFaultTest, MetadataThatNobodyWouldWriteAreNamedAndNotFollowed) {
  std::string const deep = std::string(100'000, '[') + std::string(100'000, ']');
  for (auto const& [added, word] : std::vector<std::pair<std::string, char const*>>{{"\"x\": " + deep, "nested deeper than 32 levels"}, {"\"frames\": []", "given twice"}}) {
    LvsmFolder const folder;
    folder.edit_metadata("cube_env_0", "\"scene_name\"", added + ", \"scene_name\"");
    auto const report = census(folder.options());
    ASSERT_EQ(report.problems.size(), 1U);
    EXPECT_TRUE(says(to_line(report.problems[0]), {"scene cube_env_0", word}));
  }
}

// Quotes and words inside of texts are neither; a megabyte of NaN takes no longer than one of numbers.
TEST(IngestFaultTest, NanIsReadAsNoNumberOutsideOfTexts) {
  LvsmFolder const folder;
  std::string many;
  for (int i = 0; i < 200'000; ++i) { many += "NaN,-Infinity,"; }
  folder.edit_metadata("cube_env_0", "\"scene_name\"", "\"a\\\\\": \"NaN \\\" Infinity\", \"b\": [" + many + "1], \"scene_name\"");
  EXPECT_TRUE(census(folder.options()).problems.empty());
}

TEST(IngestFaultTest, DuplicateCamerasAreWarnedOfAndTaken) {
  LvsmFolder const folder;
  for (char const* scene : {"ball_env_0", "ball_env_0_1", "ball_env_1"}) { folder.edit_metadata(scene, "[0, 0, 1, 3]", "[0, 0, 1, 2]"); }
  auto const report = census(folder.options());
  EXPECT_TRUE(report.problems.empty());
  ASSERT_EQ(report.warnings.size(), 3U);
  EXPECT_EQ(to_line(report.warnings[0]), "scene ball_env_0 frame 1: its camera is that of frame 0 (duplicate)");
}

TEST(IngestFaultTest, PathsOfAnotherMachineAreToldTheRemapThatWorks) {
  LvsmFolder const folder;
  auto options = folder.options();
  options.remaps.clear();
  auto const report = census(options);
  ASSERT_EQ(report.problems.size(), 6U);  // no metadata file of the list is found
  std::string const advice = fmt::format("give --remap {}={}", kListedPrefix, folder.root());
  for (auto const& problem : report.problems) { EXPECT_TRUE(says(problem.problem, {"metadata", "missing", advice})); }
  // Pointed at the folder without a list, the metadata are found; the pictures inside them are not.
  fs::remove(folder.path("full_list.txt"));
  options.scenes = {folder.root()};
  auto const pictures = census(options);
  ASSERT_EQ(pictures.problems.size(), 12U);
  for (auto const& problem : pictures.problems) { EXPECT_TRUE(says(problem.problem, {"picture", "missing", advice})); }
  options.remaps = {{kListedPrefix, folder.root()}};
  EXPECT_TRUE(census(options).problems.empty());
}

TEST(IngestFaultTest, AFlippedByteInThePicturesDataIsNamed) {
  LvsmFolder const folder;
  auto const bytes = file_bytes(folder.picture("ball_env_1", 1));
  flip_byte(folder.picture("ball_env_1", 1), bytes.find("IDAT") + 10);
  auto const report = census(folder.options());
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_TRUE(says(to_line(report.problems[0]), {"scene ball_env_1 frame 1", "00001.png", "altered", "IDAT", "checksum"}));
}

TEST(IngestFaultTest, AFileThatChangesAfterItsCheckIsAnError) {
  LvsmFolder const folder;
  auto options = folder.options();
  options.say = [&](std::string const& line) {
    if (line.starts_with("scenes-00000.h5")) { fs::copy_file(folder.picture("ball_env_0", 0), folder.picture("cube_env_1", 1), fs::copy_options::overwrite_existing); }
  };
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(options); }), {"scene cube_env_1 frame 1", "changed after it was checked"}));
  EXPECT_FALSE(fs::exists(options.out + "/manifest.json"));
}

TEST(IngestSourceTest, FoldersAreFoundByTheirListOrMetadata) {
  LvsmFolder const folder;
  auto options = folder.options();
  fs::create_directories(folder.path("sets"));
  for (char const* part : {"metadata", "images", "envmaps", "full_list.txt"}) {
    fs::create_directories(folder.path("sets/train"));
    fs::rename(folder.path(part), folder.path("sets/train/" + std::string(part)));
  }
  options.remaps = {{kListedPrefix, folder.path("sets/train")}};
  for (char const* source : {"sets/train/full_list.txt", "sets/train", "sets", "."}) {
    options.scenes = {folder.path(source)};
    EXPECT_EQ(census(options).scenes, 6) << source;
  }
  fs::remove(folder.path("sets/train/full_list.txt"));
  EXPECT_EQ(census(options).scenes, 6);
  options.scenes = {folder.path("sets/train/images")};
  EXPECT_TRUE(says(data_error_of([&] { census(options); }), {"images", "no full_list.txt and no metadata"}));
}

TEST(IngestSourceTest, ATarGivesTheBytesOfItsFolderWithoutARemap) {
  LvsmFolder const folder;
  auto options = folder.options();
  auto const from_folder = ingest_lvsm(options);
  ASSERT_EQ(std::system(fmt::format("cd {} && tar -cf set.tar full_list.txt metadata images envmaps", folder.root()).c_str()), 0);
  for (char const* part : {"metadata", "images", "envmaps", "full_list.txt"}) { fs::remove_all(folder.path(part)); }
  options.scenes = {folder.path("set.tar")};
  options.remaps.clear();
  options.out = folder.path("from_tar");
  auto const from_tar = ingest_lvsm(options);
  EXPECT_EQ(from_tar.shards, from_folder.shards);
  for (auto const& file : from_tar.shards) { EXPECT_EQ(file_bytes(folder.path("out/" + file)), file_bytes(folder.path("from_tar/" + file))) << file; }
}

TEST(IngestSourceTest, PicturesMayBeLinearButLightMapsPerFrameAreEncoded) {
  LvsmFolder const folder;
  ImageF half{8, 8, std::vector<float>(192, 0.5F)};
  write_exr(folder.path("images/ball_env_0/linear.exr"), half);
  folder.edit_metadata("ball_env_0", "00000.png", "linear.exr");
  EXPECT_TRUE(census(folder.options()).problems.empty());
  fs::copy_file(folder.path("images/ball_env_0/linear.exr"), folder.light_map("cube_env_0", 0, "ldr"), fs::copy_options::overwrite_existing);
  auto const report = census(folder.options());
  ASSERT_EQ(report.problems.size(), 1U);
  EXPECT_TRUE(says(report.problems[0].problem, {"00000_ldr.png", "an EXR"}));
}

}  // namespace
}  // namespace duoflow::data::testing
