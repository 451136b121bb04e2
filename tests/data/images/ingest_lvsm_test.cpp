#include "data/ingest/ingest_lvsm.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "data/cameras.h"
#include "data/images/image_io.h"
#include "data/shards/raw_reader.h"
#include "data/shards/shard_writer.h"
#include "lvsm_folder.h"

namespace duoflow::data::testing {
namespace {

namespace fs = std::filesystem;
using Names = std::pair<std::string, std::string>;

TEST(SceneNameTest, ObjectAndLightAreSplitAtTheLightsTag) {
  EXPECT_EQ(split_scene_name("bunny_env_0_1"), Names("bunny", "env_0_1"));
  EXPECT_EQ(split_scene_name("a_env_b_env_12"), Names("a_env_b", "env_12"));
  EXPECT_EQ(split_scene_name("vase_white_env_0"), Names("vase", "white_env_0"));
  EXPECT_EQ(split_scene_name("lamp_rgb_pl_3"), Names("lamp", "rgb_pl_3"));
  EXPECT_EQ(split_scene_name("odd_name"), Names("odd", "name"));
  EXPECT_EQ(split_scene_name("odd"), Names("odd", ""));
}

TEST(SceneNameTest, BaseLightDropsTheRotation) {
  EXPECT_EQ(base_light("env_0_1"), "env_0");
  EXPECT_EQ(base_light("env_12"), "env_12");
  EXPECT_EQ(base_light("white_env_3"), "white_env_3");
  EXPECT_EQ(base_light("rgb_pl_3"), "rgb_pl_3");
  EXPECT_EQ(base_light("env_a_1"), "env_a_1");
}

TEST(IngestLvsmTest, CensusCountsWithoutWriting) {
  LvsmFolder const folder;
  auto options = folder.options();
  options.dry_run = true;
  std::vector<std::string> lines;
  options.say = [&](std::string const& line) { lines.push_back(line); };
  auto const report = ingest_lvsm(options);
  EXPECT_EQ(report.objects, 2);
  EXPECT_EQ(report.scenes, 6);
  EXPECT_EQ(report.frames, 12);
  EXPECT_EQ(report.pairs, 8);  // env_1 with env_0 and env_0_1, both ways, for two objects
  EXPECT_EQ(report.lights, (std::map<std::string, std::int64_t>{{"ball", 3}, {"cube", 3}}));
  EXPECT_TRUE(report.problems.empty());
  EXPECT_TRUE(report.shards.empty());
  EXPECT_FALSE(fs::exists(options.out));
  EXPECT_NE(std::find(lines.begin(), lines.end(), "ball: 3 lights, 6 frames, 4 pairs"), lines.end());
}

TEST(IngestLvsmTest, ScenesAreStoredInOrderWithTheirPicturesAndCameras) {
  LvsmFolder const folder;
  auto const report = ingest_lvsm(folder.options());
  EXPECT_EQ(report.shards, (std::vector<std::string>{"scenes-00000.h5", "scenes-00001.h5", "scenes-00002.h5"}));
  EXPECT_EQ(report.shards, report.all_shards);
  auto const out = folder.path("out");
  write_manifest(out, ShardKind::scene, report.all_shards);
  auto const index = std::make_shared<ShardIndex const>(out);
  auto const set = load_scenes(*index);
  std::vector<std::string> names;
  for (auto const& scene : set.scenes) { names.push_back(scene.object + "_" + scene.light); }
  EXPECT_EQ(names, (std::vector<std::string>{"ball_env_0", "ball_env_0_1", "ball_env_1", "cube_env_0", "cube_env_0_1", "cube_env_1"}));
  EXPECT_TRUE(set.has_alpha);
  EXPECT_TRUE(set.env_per_frame);
  EXPECT_EQ(set.height, 8);  // the first picture's
  EXPECT_EQ(set.env_width, 8);

  auto const& scene = set.scenes[3];  // second of shard 1
  EXPECT_EQ(scene.shard, 1);
  EXPECT_EQ(scene.first_frame, 2);
  EXPECT_EQ(scene.env_row, -1);
  std::vector<float> const standing{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, -3, 0, 0, 0, 1};  // frame 1: w2c moves by +3
  EXPECT_TRUE(std::equal(standing.begin(), standing.end(), scene.c2w.begin() + 16));
  EXPECT_EQ(std::vector<float>(scene.fxfycxcy.begin(), scene.fxfycxcy.begin() + 4), (std::vector<float>{10, 10, 4, 4}));

  RawReader const reader(index);
  auto const stored = read_image(folder.picture("cube_env_0", 1));
  std::vector<std::uint8_t> picture(192), alpha(64), map(96);
  reader.read(1, "images", 3, picture.data());
  reader.read(1, "alpha", 3, alpha.data());
  reader.read(1, "env_hdr", 3, map.data());
  EXPECT_EQ(picture, over_white(stored).pixels);
  for (std::size_t i = 0; i < 64; ++i) { EXPECT_EQ(alpha[i], stored.pixels[4 * i + 3]); }
  EXPECT_EQ(map, read_image(folder.light_map("cube_env_0", 1, "hdr")).pixels);
}

TEST(IngestLvsmTest, IntrinsicsFollowResizeAndCentreCrop) {
  LvsmFolder const folder;
  Image8 wide{8, 12, 4, std::vector<std::uint8_t>(384, 200)};
  for (int const frame : {0, 1}) {
    write_png(folder.picture("ball_env_0", frame), wide);
    folder.edit_metadata("ball_env_0", "[10, 10, 4, 4]", "[10, 11, 5, 3]");
  }
  auto options = folder.options();
  options.size = 4;
  options.env_height = 2;
  auto const report = ingest_lvsm(options);
  write_manifest(options.out, ShardKind::scene, report.all_shards);
  auto const set = load_scenes(ShardIndex(options.out));
  EXPECT_EQ(set.width, 4);
  EXPECT_EQ(set.env_height, 2);
  EXPECT_EQ(set.env_width, 4);
  // 8 x 12 to 4 x 6, one column cut on each side
  EXPECT_EQ(std::vector<float>(set.scenes[0].fxfycxcy.begin(), set.scenes[0].fxfycxcy.begin() + 4), (std::vector<float>{5, 5.5F, 1.5F, 1.5F}));
  EXPECT_EQ(std::vector<float>(set.scenes[1].fxfycxcy.begin(), set.scenes[1].fxfycxcy.begin() + 4), (std::vector<float>{5, 5, 2, 2}));
}

// One frame of a scene without alpha, the other with it.
TEST(IngestLvsmTest, AlphaIsKeptOnlyWhenAllPicturesHaveIt) {
  LvsmFolder const folder;
  write_png(folder.picture("cube_env_1", 0), Image8{8, 8, 3, std::vector<std::uint8_t>(192, 50)});
  auto options = folder.options();
  std::vector<std::string> lines;
  options.say = [&](std::string const& line) { lines.push_back(line); };
  auto const report = ingest_lvsm(options);
  EXPECT_TRUE(says(fmt::format("{}", fmt::join(lines, "\n")),
                   {"1 of 12 pictures have no alpha, the first is scene cube_env_1 frame 0", "no masks are stored"}));
  EXPECT_TRUE(report.problems.empty());
  write_manifest(options.out, ShardKind::scene, report.all_shards);
  auto const index = std::make_shared<ShardIndex const>(options.out);
  EXPECT_FALSE(load_scenes(*index).has_alpha);
  for (auto const& shard : index->shards()) { EXPECT_EQ(shard.datasets.count("alpha"), 0U) << shard.file; }
  std::vector<std::uint8_t> without(192), with(192);
  RawReader const reader(index);
  reader.read(2, "images", 2, without.data());  // cube_env_1 is the second scene of shard 2
  reader.read(2, "images", 3, with.data());
  EXPECT_EQ(without, std::vector<std::uint8_t>(192, 50));
  EXPECT_EQ(with, over_white(read_image(folder.picture("cube_env_1", 1))).pixels);
}

TEST(IngestLvsmTest, PicturesThatAllLackAlphaGiveNoMasksAndNothingToSay) {
  LvsmFolder const folder;
  put_bytes(folder.path("short.txt"), std::string(kListedPrefix) + "/metadata/ball_env_0.json\n");
  for (int const frame : {0, 1}) {
    write_png(folder.picture("ball_env_0", frame), Image8{8, 8, 3, std::vector<std::uint8_t>(192, 50)});
  }
  auto options = folder.options();
  options.scenes = {folder.path("short.txt")};
  options.say = [](std::string const& line) { EXPECT_EQ(line.find("alpha"), std::string::npos) << line; };
  write_manifest(options.out, ShardKind::scene, ingest_lvsm(options).all_shards);
  EXPECT_FALSE(load_scenes(ShardIndex(options.out)).has_alpha);
}

TEST(IngestLvsmTest, ASceneListedTwiceIsTakenOnce) {
  LvsmFolder const folder;
  auto options = folder.options();
  put_bytes(folder.path("metadata/other_list.txt"),
            "ball_env_0.json\n" + folder.path("metadata/../metadata/cube_env_1.json") + "\n");
  options.scenes = {folder.path("full_list.txt"), folder.path("full_list.txt"), folder.path("metadata/other_list.txt")};
  auto const report = ingest_lvsm(options);
  EXPECT_EQ(report.scenes, 6);
  EXPECT_TRUE(report.problems.empty());
  write_manifest(options.out, ShardKind::scene, report.all_shards);
  EXPECT_EQ(load_scenes(ShardIndex(options.out)).scenes.size(), 6U);
}

TEST(IngestLvsmTest, TwoScenesOfOneNameAreAnError) {
  LvsmFolder const folder;
  fs::create_directories(folder.path("copy"));
  for (char const* part : {"metadata", "images", "envmaps"}) {
    fs::copy(folder.path(part), folder.path("copy/" + std::string(part)), fs::copy_options::recursive);
  }
  folder.add_line(folder.path("copy/metadata/ball_env_0.json"));
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(folder.options()); }),
                   {"scene ball_env_0: its name is listed twice", "nothing was written"}));
  EXPECT_FALSE(fs::exists(folder.path("out")));
}

TEST(IngestLvsmTest, ScenesUnderOtherLightsAreLeftOutAndSaid) {
  LvsmFolder const folder;
  folder.add_line(std::string(kListedPrefix) + "/metadata/ball_white_pl_0.json");
  auto const report = ingest_lvsm(folder.options());
  EXPECT_EQ(report.other_lights, std::vector<std::string>{"ball_white_pl_0"});
  EXPECT_EQ(report.scenes, 6);
}

struct Expected {
  std::string scene;
  std::int64_t frame;
  std::vector<std::string> parts;
};

// A folder with one fault of each kind.
std::vector<Expected> spoil(LvsmFolder const& folder) {
  fs::remove(folder.picture("ball_env_0", 1));
  auto const picture = folder.picture("ball_env_1", 0);
  put_bytes(picture, file_bytes(picture).substr(0, 100));
  folder.edit_metadata("cube_env_0", "[[1, 0, 0, 0], [0, 1, 0, 0]", "[[1, 0, 0, 0], [0, 1.5, 0, 0]");
  fs::remove(folder.light_map("cube_env_1", 0, "hdr"));
  folder.add_line("/elsewhere/metadata/orb_env_0.json");
  folder.edit_metadata("ball_env_0_1", "\"frames\"", "frames");
  return {{"ball_env_0", 1, {"00001.png", "missing"}},
          {"ball_env_0_1", -1, {"ball_env_0_1.json", "cannot be read"}},
          {"ball_env_1", 0, {"00000.png", "cut short"}},
          {"cube_env_0", 0, {"w2c", "not orthonormal", "1.25"}},
          {"cube_env_1", 0, {"00000_hdr.png", "missing"}},
          {"orb_env_0", -1, {"/elsewhere/metadata/orb_env_0.json", "missing", "--remap"}}};
}

void expect_problems(std::vector<IngestProblem> const& problems, std::vector<Expected> const& expected) {
  ASSERT_EQ(problems.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(problems[i].scene, expected[i].scene);
    EXPECT_EQ(problems[i].frame, expected[i].frame);
    EXPECT_TRUE(says(problems[i].problem, expected[i].parts));
  }
}

TEST(IngestLvsmTest, EveryFaultIsNamedAndNothingIsWritten) {
  LvsmFolder const folder;
  auto const expected = spoil(folder);
  auto options = folder.options();
  auto const message = data_error_of([&] { ingest_lvsm(options); });
  for (auto const& fault : expected) {
    EXPECT_TRUE(says(message, {fault.frame < 0 ? "scene " + fault.scene + ":" : "scene " + fault.scene + " frame " + std::to_string(fault.frame) + ":"}));
    EXPECT_TRUE(says(message, fault.parts));
  }
  EXPECT_FALSE(fs::exists(options.out));
  options.dry_run = true;
  expect_problems(ingest_lvsm(options).problems, expected);
  EXPECT_FALSE(fs::exists(options.out));
}

TEST(IngestLvsmTest, BadScenesAreLeftOutAndListedOnRequest) {
  LvsmFolder const folder;
  auto const expected = spoil(folder);
  auto options = folder.options();
  options.skip_bad = true;
  auto const report = ingest_lvsm(options);
  expect_problems(report.problems, expected);
  EXPECT_EQ(report.scenes, 1);
  EXPECT_EQ(report.all_shards, std::vector<std::string>{"scenes-00000.h5"});
  auto const skipped = file_bytes(options.out + "/skipped.txt");
  EXPECT_EQ(std::count(skipped.begin(), skipped.end(), '\n'), 6);
  EXPECT_TRUE(says(skipped, {"scene ball_env_0 frame 1: ", "scene orb_env_0: "}));
  write_manifest(options.out, ShardKind::scene, report.all_shards);
  EXPECT_EQ(load_scenes(ShardIndex(options.out)).scenes[0].light, "env_0_1");  // of the cube
}

TEST(IngestLvsmTest, AlteredByteInAPictureIsFoundBeforeWriting) {
  LvsmFolder const folder;
  flip_byte(folder.light_map("cube_env_1", 1, "ldr"), 60);
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(folder.options()); }), {"scene cube_env_1 frame 1", "00001_ldr.png", "altered"}));
  EXPECT_FALSE(fs::exists(folder.path("out")));
}

TEST(IngestLvsmTest, CamerasOfOneObjectMustAgreeAcrossLights) {
  LvsmFolder const folder;
  folder.edit_metadata("ball_env_1", "[0, 0, 1, 3]", "[0, 0, 1, 3.5]");
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(folder.options()); }), {"scene ball_env_1 frame 1", "differs by 0.5", "ball_env_0"}));
}

TEST(IngestLvsmTest, FirstMatchingRemapWinsAndMatchesWholeFolderNames) {
  LvsmFolder const folder;
  auto options = folder.options();
  options.dry_run = true;
  options.remaps = {{"/nowhere/rel", "/wrong"}, {std::string(kListedPrefix) + "/", folder.root()}, {"/nowhere", "/wrong"}};
  EXPECT_TRUE(ingest_lvsm(options).problems.empty());
  options.remaps = {{"/nowhere", "/wrong"}, {kListedPrefix, folder.root()}};
  EXPECT_EQ(ingest_lvsm(options).problems.size(), 6U);
}

TEST(IngestLvsmTest, ShardsDoNotDependOnTheNumberOfWorkers) {
  LvsmFolder const folder;
  auto options = folder.options();
  auto const alone = ingest_lvsm(options);
  options.out = folder.path("shared_out");
  options.workers = 3;
  std::vector<std::string> written;
  for (options.worker = 2; options.worker >= 0; --options.worker) {
    auto const report = ingest_lvsm(options);
    EXPECT_EQ(report.all_shards, alone.all_shards);
    written.insert(written.end(), report.shards.begin(), report.shards.end());
  }
  std::sort(written.begin(), written.end());
  EXPECT_EQ(written, alone.all_shards);
  for (auto const& file : written) { EXPECT_EQ(file_bytes(folder.path("out/" + file)), file_bytes(folder.path("shared_out/" + file))) << file; }
}

TEST(IngestLvsmTest, SenselessOptionsAreErrors) {
  LvsmFolder const folder;
  auto options = folder.options();
  options.scenes_per_shard = 0;
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(options); }), {"0 scenes per shard"}));
  options = folder.options();
  options.worker = 1;
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(options); }), {"worker 1 of 1"}));
  options = folder.options();
  options.scenes = {folder.path("no_list.txt")};
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(options); }), {"no_list.txt"}));
  put_bytes(folder.path("no_list.txt"), "\n");
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(options); }), {"no scene"}));
}

}  // namespace
}  // namespace duoflow::data::testing
