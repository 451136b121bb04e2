// Path-traced scenes of another renderer through ingest: counts, and mesh points reprojected into the ingested silhouettes.

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <iostream>

#include "data/images/environment_map.h"
#include "data/ingest/ingest_lvsm.h"
#include "data/shards/raw_reader.h"
#include "data/loading/scene_lights.h"
#include "data/shards/shard_writer.h"
#include "lvsm_folder.h"
#include "python.h"

namespace duoflow::data::testing {
namespace {

using Point = std::array<float, 3>;

// float32 [n,3], little-endian, C order, as numpy.save writes it.
std::vector<Point> read_points(std::string const& path) {
  auto const bytes = file_bytes(path);
  auto const header = 10 + static_cast<std::size_t>(static_cast<std::uint8_t>(bytes[8])) + 256 * static_cast<std::size_t>(static_cast<std::uint8_t>(bytes[9]));
  EXPECT_NE(bytes.substr(0, header).find("'<f4'"), std::string::npos) << path;
  std::vector<Point> points((bytes.size() - header) / sizeof(Point));
  std::memcpy(points.data(), bytes.data() + header, points.size() * sizeof(Point));
  return points;
}

// How many points fall on a pixel that the object covers.
std::size_t inside(std::vector<Point> const& points, float const* c2w, float const* k, std::vector<std::uint8_t> const& alpha, std::int64_t size) {
  std::size_t count = 0;
  for (Point const& p : points) {
    std::array<double, 3> camera{};  // R^T (p - centre)
    for (std::size_t i = 0; i < 9; ++i) { camera[i % 3] += static_cast<double>(c2w[4 * (i / 3) + i % 3]) * (p[i / 3] - c2w[4 * (i / 3) + 3]); }
    auto const column = static_cast<std::int64_t>(std::floor(k[0] * camera[0] / camera[2] + k[2]));
    auto const row = static_cast<std::int64_t>(std::floor(k[1] * camera[1] / camera[2] + k[3]));
    if (camera[2] <= 0 || column < 0 || column >= size || row < 0 || row >= size) { continue; }
    count += alpha[static_cast<std::size_t>(row * size + column)] > 0 ? 1 : 0;
  }
  return count;
}

double correlation(ImageF const& a, ImageF const& b) {
  double sum_a = 0, sum_b = 0, aa = 0, bb = 0, ab = 0;
  auto const count = static_cast<double>(a.pixels.size());
  for (std::size_t i = 0; i < a.pixels.size(); ++i) {
    double const x = std::log(1e-2 + static_cast<double>(a.pixels[i])), y = std::log(1e-2 + static_cast<double>(b.pixels[i]));
    sum_a += x, sum_b += y, aa += x * x, bb += y * y, ab += x * y;
  }
  return (ab - sum_a * sum_b / count) / std::sqrt((aa - sum_a * sum_a / count) * (bb - sum_b * sum_b / count));
}

struct Split {
  std::string name;
  std::int64_t objects, scenes, frames, pairs;
};

class SharedIngestTest : public ::testing::TestWithParam<Split> {};

TEST_P(SharedIngestTest, CountsAreThePublishedOnesAndPointsFallIntoSilhouettes) {
  if (shared_data().empty()) { GTEST_SKIP() << "no shared data beside the project"; }
  auto const& split = GetParam();
  auto const root = shared_data() + "/lvsm_scenes/";
  TemporaryFolder const folder;
  IngestOptions options;
  options.scenes = {root + split.name + "/full_list.txt"};
  options.remaps = {{"/data/relit/lvsm_scenes", root}};
  options.out = folder.path();
  options.size = 64;
  options.scenes_per_shard = 20;
  auto const report = ingest_lvsm(options);
  EXPECT_EQ(report.objects, split.objects);
  EXPECT_EQ(report.scenes, split.scenes);
  EXPECT_EQ(report.frames, split.frames);
  EXPECT_EQ(report.pairs, split.pairs);
  EXPECT_TRUE(report.problems.empty());
  write_manifest(folder.path(), ShardKind::scene, report.all_shards);

  auto const index = std::make_shared<ShardIndex const>(folder.path());
  auto const set = load_scenes(*index);
  EXPECT_EQ(set.env_height, 64);
  RawReader const reader(index);
  std::vector<std::uint8_t> alpha(64 * 64);
  std::string object;
  for (auto const& scene : set.scenes) {
    if (scene.object == object) { continue; }  // one light of each object
    object = scene.object;
    auto const points = read_points(root + "source/" + object + "/" + split.name + "/points.npy");
    ASSERT_GT(points.size(), 100U);
    std::size_t hits = 0;
    for (std::int64_t frame = 0; frame < scene.frame_count; ++frame) {
      reader.read(scene.shard, "alpha", scene.first_frame + frame, alpha.data());
      hits += inside(points, scene.c2w.data() + 16 * frame, scene.fxfycxcy.data() + 4 * frame, alpha, 64);
    }
    double const share = static_cast<double>(hits) / (static_cast<double>(points.size()) * static_cast<double>(scene.frame_count));
    EXPECT_GE(share, 0.99) << object;
    std::cout << object << ": " << share << " of the points inside\n";
  }
}

// The maps' own files with the renders' yaw and strength, against the pairs another program turned into the cameras' axes.
TEST(SharedLightsTest, SourceMapsAndPerFramePairsShowTheSameLight) {
  if (shared_data().empty()) { GTEST_SKIP() << "no shared data beside the project"; }
  auto const root = shared_data() + "/lvsm_scenes/";
  TemporaryFolder const folder;
  IngestOptions options;
  options.scenes = {root + "test"};
  options.remaps = {{"/data/relit/lvsm_scenes", root}};
  options.size = 16;
  std::vector<std::shared_ptr<ShardIndex const>> indices;
  for (bool const from_source : {false, true}) {
    options.out = folder / (from_source ? "sources" : "pairs");
    options.env_height = from_source ? 64 : 0;
    options.envmaps = from_source ? shared_data() + "/envmaps" : "";
    options.renders = from_source ? root + "source" : "";
    write_manifest(options.out, ShardKind::scene, ingest_lvsm(options).all_shards);
    indices.push_back(std::make_shared<ShardIndex const>(options.out));
  }
  auto const pairs = load_scenes(*indices[0]), sources = load_scenes(*indices[1]);
  ASSERT_EQ(pairs.scenes.size(), 14U);
  ASSERT_EQ(sources.scenes.size(), 14U);
  for (std::size_t i = 0; i < pairs.scenes.size(); ++i) {
    // Strength is in the source maps alone: directions are compared, by the correlation of log radiance.
    auto const a = scene_light(RawReader(indices[0]), pairs, pairs.scenes[i], 32), b = scene_light(RawReader(indices[1]), sources, sources.scenes[i], 32);
    double const found = correlation(a, b), turned = correlation(a, rotate_map(b, {0, -1, 0, 1, 0, 0, 0, 0, 1}));
    EXPECT_GT(found, 0.9) << pairs.scenes[i].object << " " << pairs.scenes[i].light;
    EXPECT_LT(turned, found - 0.03) << "a quarter turn must fit worse";
  }
}

INSTANTIATE_TEST_SUITE_P(Splits, SharedIngestTest, ::testing::Values(Split{"train", 8, 49, 588, 250}, Split{"test", 2, 14, 168, 80}),
                         [](auto const& split) { return split.param.name; });

}  // namespace
}  // namespace duoflow::data::testing
