// Source light maps through ingest: which map, how strong, how turned.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <numbers>

#include "data/images/environment_map.h"
#include "data/images/image_io.h"
#include "data/shards/raw_reader.h"
#include "data/loading/scene_lights.h"
#include "data/shards/shard_writer.h"
#include "lvsm_folder.h"

namespace duoflow::data::testing {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kHeight = 16, kWidth = 32;

ImageF dark() { return {kHeight, kWidth, std::vector<float>(3 * kHeight * kWidth)}; }

// A folder whose scenes are lit by maps/: env_0 and its turned copy by hall, env_1 by sky.
struct LitFolder : LvsmFolder {
  LitFolder() {
    fs::create_directories(path("maps"));
    ImageF hall = dark(), sky = dark();
    hall.pixels[3 * (5 * kWidth + 9)] = 8;  // red, at row 5, column 9
    std::fill(sky.pixels.begin(), sky.pixels.end(), 1.0F);
    write_exr(path("maps/hall.exr"), hall);
    write_exr(path("maps/sky.exr"), sky);
    table(R"("env_0": {"env_map": "hall.exr", "strength": 0.5}, "env_0_1": {"env_map": "/far/maps/hall.exr", "rotation_euler": [0.3, -0.7, 1.1], "strength": 0.5},
             "env_1": {"env_map": "sky.hdr"})");
    fs::remove_all(path("envmaps"));  // not needed
  }
  void table(std::string const& entries) const { put_bytes(path("maps/lights.json"), "{" + entries + "}"); }
  IngestOptions lit() const {
    auto out = options();
    out.envmaps = path("maps");
    return out;
  }
};

struct Ingested {
  std::shared_ptr<ShardIndex const> index;
  SceneSet set;
  explicit Ingested(IngestOptions const& options) {
    write_manifest(options.out, ShardKind::scene, ingest_lvsm(options).all_shards);
    index = std::make_shared<ShardIndex const>(options.out);
    set = load_scenes(*index);
  }
  SceneEntry const& scene(std::string const& object, std::string const& light) const {
    for (auto const& scene : set.scenes) {
      if (scene.object == object && scene.light == light) { return scene; }
    }
    throw std::logic_error("no such scene");
  }
};

TEST(IngestLightsTest, EachMapIsStoredOncePerShardWithItsStrength) {
  LitFolder const folder;
  Ingested const out(folder.lit());
  EXPECT_FALSE(out.set.env_per_frame);
  EXPECT_EQ(out.set.env_height, kHeight);
  EXPECT_EQ(out.set.env_width, kWidth);
  RawReader const reader(out.index);
  std::vector<std::uint16_t> half(3 * kHeight * kWidth);
  auto const &plain = out.scene("ball", "env_0"), &turned = out.scene("ball", "env_0_1");  // of one shard
  EXPECT_EQ(plain.shard, turned.shard);
  EXPECT_EQ(plain.env_row, turned.env_row);
  reader.read(plain.shard, "env", plain.env_row, half.data());
  EXPECT_EQ(from_half(half[3 * (5 * kWidth + 9)]), 4.0F);  // half of 8
  EXPECT_EQ(std::count(half.begin(), half.end(), 0), static_cast<std::ptrdiff_t>(half.size()) - 1);
  auto const& sky = out.scene("cube", "env_1");
  reader.read(sky.shard, "env", sky.env_row, half.data());
  EXPECT_TRUE(std::all_of(half.begin(), half.end(), [](std::uint16_t bits) { return from_half(bits) == 1.0F; }));
}

// Axes, end to end: under a turned map the light's one bright pixel is seen in the world direction that the turn maps to it.
TEST(IngestLightsTest, AOneHotMapShinesFromTheTurnedDirection) {
  LitFolder const folder;
  Ingested const out(folder.lit());
  RawReader const reader(out.index);
  for (auto const& [light, euler] : {std::pair{"env_0", std::array{0.0, 0.0, 0.0}}, {"env_0_1", std::array{0.3, -0.7, 1.1}}}) {
    auto const map = scene_light(reader, out.set, out.scene("cube", light), kHeight);
    auto const brightest = (std::max_element(map.pixels.begin(), map.pixels.end()) - map.pixels.begin()) / 3;
    auto const seen = map_direction(brightest / kWidth, brightest % kWidth, kHeight, kWidth);
    // The map's pixel p is p = Rz Ry Rx d; so d = Rx(-a) Ry(-b) Rz(-c) p, by sines and cosines written out.
    auto const p = map_direction(5, 9, kHeight, kWidth);
    auto const [a, b, c] = euler;
    double const x1 = std::cos(c) * p[0] + std::sin(c) * p[1], y1 = -std::sin(c) * p[0] + std::cos(c) * p[1];
    double const x2 = std::cos(b) * x1 - std::sin(b) * p[2], z2 = std::sin(b) * x1 + std::cos(b) * p[2];
    double const y3 = std::cos(a) * y1 + std::sin(a) * z2, z3 = -std::sin(a) * y1 + std::cos(a) * z2;
    double const cosine = seen[0] * x2 + seen[1] * y3 + seen[2] * z3;
    EXPECT_GT(cosine, std::cos(std::numbers::pi / kHeight)) << light << ": within a pixel of the map";
  }
}

// The published formula of yaw alone: u = 1/2 - (atan2(y, x) + yaw) / 2 pi.
TEST(IngestLightsTest, YawRollsTheMapAsTheRenderersFormulaSays) {
  LitFolder const folder;
  double const yaw = 2 * std::numbers::pi * 7 / kWidth;  // seven columns
  folder.table(fmt::format(R"("env_0": {{"env_map": "hall.exr"}}, "env_0_1": {{"env_map": "hall.exr", "rotation_euler": [0, 0, {}]}}, "env_1": {{"env_map": "sky.exr"}})", yaw));
  Ingested const out(folder.lit());
  auto const map = scene_light(RawReader(out.index), out.set, out.scene("ball", "env_0_1"), kHeight);
  // Column i of the world map shows column i - 7 of the stored one.
  EXPECT_NEAR(map.pixels[3 * (5 * kWidth + 16)], 8, 1e-2);
  EXPECT_NEAR(map.pixels[3 * (5 * kWidth + 9)], 0, 1e-2);
}

TEST(IngestLightsTest, TheRendersTellMapRotationAndStrength) {
  LitFolder const folder;
  fs::remove(folder.path("maps/lights.json"));
  auto options = folder.lit();
  for (char const* object : {"ball", "cube"}) {
    for (char const* light : {"env_0", "env_0_1", "env_1"}) {
      auto const place = folder.path(fmt::format("renders/{}/train/{}", object, light));
      fs::create_directories(place);
      put_bytes(place + "/env.json", R"({"env_map": "sky.exr", "rotation_euler": [0, 0, 0], "strength": 3})");
    }
  }
  options.renders = folder.path("renders");
  Ingested const out(options);
  auto const& scene = out.scene("cube", "env_0_1");
  auto const map = scene_light(RawReader(out.index), out.set, scene, kHeight);
  EXPECT_TRUE(std::all_of(map.pixels.begin(), map.pixels.end(), [](float value) { return value == 3.0F; }));
  fs::remove(folder.path("renders/cube/train/env_1/env.json"));
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(options); }), {"scene cube_env_1", "no env.json"}));
}

TEST(IngestLightsTest, BadNumbersOfAMapAreRepairedAndCounted) {
  LitFolder const folder;
  ImageF sky = dark();
  sky.pixels[0] = -3894;
  sky.pixels[1] = std::numeric_limits<float>::quiet_NaN();
  sky.pixels[2] = 40000;  // beyond half at strength 2
  write_exr(folder.path("maps/sky.exr"), sky);
  folder.table(R"("env_0": {"env_map": "hall.exr"}, "env_0_1": {"env_map": "hall.exr"}, "env_1": {"env_map": "sky.exr", "strength": 2})");
  auto options = folder.lit();
  options.dry_run = true;
  auto const report = ingest_lvsm(options);
  ASSERT_EQ(report.warnings.size(), 1U);
  EXPECT_TRUE(says(to_line(report.warnings[0]), {"sky.exr: of its 1536 numbers 1 negative became 0, 1 NaN became 0, 1 above 65504 became 65504"}));
}

TEST(IngestLightsTest, LightsThatCannotBeFoundOrReadAreProblemsOfTheirScenes) {
  LitFolder const folder;
  auto options = folder.lit();
  options.dry_run = true;
  folder.table(R"("env_0": {"env_map": "hall.exr"}, "cube_env_0_1": {"env_map": "gone.exr"}, "ball_env_0_1": {"env_map": "sky.exr", "strength": -1}, "env_1": {"map": 1})");
  std::vector<std::string> lines;
  for (auto const& problem : ingest_lvsm(options).problems) { lines.push_back(to_line(problem)); }
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_TRUE(says(lines[0], {"scene ball_env_0_1", "strength -1"}));
  EXPECT_TRUE(says(lines[1], {"scene ball_env_1", "entry env_1", "is no light"}));
  EXPECT_TRUE(says(lines[2], {"scene cube_env_0_1", "gone.exr"}));
  folder.table("");
  put_bytes(folder.path("maps/env_0.exr"), file_bytes(folder.path("maps/hall.exr")).substr(0, 100));
  auto const report = ingest_lvsm(options);
  ASSERT_EQ(report.problems.size(), 6U);
  EXPECT_TRUE(says(to_line(report.problems[0]), {"scene ball_env_0:", "env_0.exr cannot be read as an EXR"}));
  EXPECT_TRUE(says(to_line(report.problems[1]), {"scene ball_env_0_1:", "no light map of it"}));
  options.renders = folder.path("renders");
  EXPECT_TRUE(says(data_error_of([&] { ingest_lvsm(options); }), {"renders is no folder"}));
}

}  // namespace
}  // namespace duoflow::data::testing
