#include "data/synth/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "data/error.h"
#include "data/shards/raw_reader.h"
#include "data/shards/shard_index.h"

namespace duoflow::data {
namespace {

class GenerateTest : public testing::Test {
 protected:
  GenerateTest() : root_(std::filesystem::path(testing::TempDir()) / "synth_generate") { std::filesystem::remove_all(root_); }
  ~GenerateTest() override { std::filesystem::remove_all(root_); }

  SynthOptions options(std::string const& folder) const {
    SynthOptions o;
    o.out = (root_ / folder).string();
    o.objects = 1;
    o.lights = 3;
    o.views = 2;
    o.size = 12;
    o.env_height = 16;
    o.samples_per_pixel = 4;
    o.seed = 9;
    return o;
  }
  std::string bytes(std::string const& folder, std::string const& file) const {
    std::ifstream in(root_ / folder / file, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
  }
  std::filesystem::path root_;
};

std::vector<std::uint8_t> rows(RawReader const& reader, std::int64_t shard, std::string const& dataset, std::int64_t first, std::int64_t count,
                               std::size_t row_bytes) {
  std::vector<std::uint8_t> out(static_cast<std::size_t>(count) * row_bytes);
  reader.read_rows(shard, dataset, first, count, out.data());
  return out;
}

TEST_F(GenerateTest, FolderIsACompleteSceneSet) {
  SynthOptions o = options("whole");
  o.objects = 2;
  int said = 0;
  o.say = [&](std::string const&) { ++said; };
  SynthReport const report = generate_scenes(o);
  EXPECT_EQ(report.scenes, 6);
  EXPECT_EQ(report.frames, 12);
  EXPECT_EQ(report.shards, (std::vector<std::string>{"scenes-00000.h5", "scenes-00001.h5"}));
  EXPECT_EQ(said, 2);
  EXPECT_TRUE(verify_folder(o.out).empty());

  SceneSet const set = load_scenes(ShardIndex(o.out));
  ASSERT_EQ(set.scenes.size(), 6U);
  EXPECT_TRUE(set.has_alpha);
  EXPECT_EQ(set.env_width, 32);
  for (std::size_t s = 0; s < 6; ++s) {
    EXPECT_EQ(set.scenes[s].light, "env_00" + std::to_string(s % 3));
    EXPECT_EQ(set.scenes[s].frame_count, 2);
    EXPECT_EQ(set.scenes[s].first_frame, static_cast<std::int64_t>(s % 3) * 2);
    EXPECT_EQ(set.scenes[s].object, set.scenes[s / 3 * 3].object);
    EXPECT_EQ(set.scenes[s].c2w, set.scenes[s / 3 * 3].c2w);
  }
  EXPECT_NE(set.scenes[0].object, set.scenes[3].object);
  for (auto const& entry : std::filesystem::directory_iterator(o.out)) {
    EXPECT_EQ(entry.path().filename().string().find("tmp"), std::string::npos);
  }
}

TEST_F(GenerateTest, BytesDoNotDependOnThreads) {
  SynthOptions one = options("one"), two = options("two");
  one.threads = 1;
  two.threads = 2;
  generate_scenes(one);
  generate_scenes(two);
  EXPECT_EQ(bytes("one", "scenes-00000.h5"), bytes("two", "scenes-00000.h5"));
  EXPECT_EQ(bytes("one", "manifest.json"), bytes("two", "manifest.json"));
}

TEST_F(GenerateTest, BytesOfAGroupUnderSharpLightsDoNotDependOnThreads) {
  for (int const threads : {1, 3}) {
    SynthOptions o = options(threads == 1 ? "group_one" : "group_three");
    o.threads = threads;
    o.light_kinds = {LightKind::sun_sky, LightKind::studio};
    o.object.per_scene = 2;
    o.object.ground = Ground::disc;
    o.object.materials = {Finish::textured, Finish::metal};
    generate_scenes(o);
  }
  EXPECT_EQ(bytes("group_one", "scenes-00000.h5"), bytes("group_three", "scenes-00000.h5"));
}

TEST_F(GenerateTest, OptionsThatChangeThePicturesAreInTheNoteAndTheUsualOnesAreNot) {
  SynthOptions o = options("noted");
  o.lights = o.views = 1;
  generate_scenes(o);
  EXPECT_EQ(ShardIndex(o.out).shards()[0].attributes.note, "procedural scenes: seed 9, 4 samples per pixel, lights procedural");
  o.out += "_more";
  o.bounces = 2;
  o.light_kinds = {LightKind::studio};
  o.object.ground = Ground::disc;
  generate_scenes(o);
  EXPECT_EQ(ShardIndex(o.out).shards()[0].attributes.note,
            "procedural scenes: seed 9, 4 samples per pixel, lights studio, 2 bounces, 16 light directions, on ground");
}

TEST_F(GenerateTest, ProgressGrowsAndNamesTheObject) {
  SynthOptions o = options("slow");
  o.size = 96;
  o.samples_per_pixel = 32;
  std::vector<double> done;
  o.progress = [&](SynthProgress const& at) {
    done.push_back(at.done);
    EXPECT_FALSE(at.object.empty());
    EXPECT_GE(at.seconds, 0.25);
  };
  auto const start = std::chrono::steady_clock::now();
  generate_scenes(o);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  if (std::chrono::steady_clock::now() - start > std::chrono::seconds(1)) { EXPECT_FALSE(done.empty()); }
  for (double const share : done) { EXPECT_TRUE(share > 0 && share <= 1); }
}

TEST_F(GenerateTest, AStoppedCallLeavesNoFinishedFolderAndCanBeRepeated) {
  SynthOptions o = options("stopped");
  o.objects = 2;
  o.say = [](std::string const&) { throw std::runtime_error("stopped"); };  // after the first object
  EXPECT_THROW(generate_scenes(o), std::runtime_error);
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::path(o.out) / "manifest.json"));
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::path(o.out) / "scenes-00001.h5"));
  o.say = {};
  generate_scenes(o);
  EXPECT_TRUE(verify_folder(o.out).empty());
}

TEST_F(GenerateTest, MeshFilesBecomeScenesOneAFileUnlessSaid) {
  std::filesystem::create_directories(root_ / "meshes");
  for (char const* name : {"one.obj", "two.obj"}) {
    std::ofstream(root_ / "meshes" / name) << "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n";
  }
  SynthOptions o = options("of_meshes");
  o.object.meshes = (root_ / "meshes").string();
  o.objects = 0;
  generate_scenes(o);
  SceneSet const set = load_scenes(ShardIndex(o.out));
  ASSERT_EQ(set.scenes.size(), 6U);
  EXPECT_EQ(set.scenes[0].object, "one");
  EXPECT_EQ(set.scenes[3].object, "two");
  o.out += "_bad";
  std::ofstream(root_ / "meshes" / "three.obj") << "v 0 0 0\nf 1 2 3\n";
  EXPECT_THROW(generate_scenes(o), DataError);
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::path(o.out) / "manifest.json"));
}

TEST_F(GenerateTest, MoreLightsViewsAndObjectsKeepTheEarlierOnes) {
  SynthOptions small = options("small"), large = options("large");
  large.objects = 2;
  large.lights = 5;
  large.views = 3;
  generate_scenes(small);
  generate_scenes(large);
  RawReader const few(std::make_shared<ShardIndex const>(small.out)), many(std::make_shared<ShardIndex const>(large.out));
  std::size_t const image = 12 * 12 * 3;
  for (std::int64_t l = 0; l < 3; ++l) {
    EXPECT_EQ(rows(few, 0, "env", l, 1, 16 * 32 * 3 * 2), rows(many, 0, "env", l, 1, 16 * 32 * 3 * 2));
    EXPECT_EQ(rows(few, 0, "images", l * 2, 2, image), rows(many, 0, "images", l * 3, 2, image));
  }
}

TEST_F(GenerateTest, BackgroundIsWhiteWithoutCoverage) {
  SynthOptions const o = options("white");
  generate_scenes(o);
  RawReader const reader(std::make_shared<ShardIndex const>(o.out));
  auto const image = rows(reader, 0, "images", 0, 1, 12 * 12 * 3), alpha = rows(reader, 0, "alpha", 0, 1, 12 * 12);
  EXPECT_EQ(alpha[0], 0);
  for (std::size_t p = 0; p < alpha.size(); ++p) {
    if (alpha[p] == 0) {
      EXPECT_EQ(image[3 * p] + image[3 * p + 1] + image[3 * p + 2], 3 * 255);
    }
  }
}

// The demo needs lights that matter: a view under a wrong light must be far from the view under the right one.
TEST_F(GenerateTest, LightsDifferByAtMostSeventeenDecibelOnAverage) {
  SynthOptions o = options("apart");
  o.objects = 2;
  o.lights = 12;
  o.views = 3;
  o.size = 24;
  o.samples_per_pixel = 16;
  generate_scenes(o);
  RawReader const reader(std::make_shared<ShardIndex const>(o.out));
  std::size_t const pixels = 24 * 24;
  double sum = 0;
  int pairs = 0;
  for (std::int64_t shard = 0; shard < o.objects; ++shard) {
    auto const images = rows(reader, shard, "images", 0, o.lights * o.views, pixels * 3);
    auto const alpha = rows(reader, shard, "alpha", 0, o.views, pixels);
    for (std::size_t v = 0; v < 3; ++v) {
      for (std::size_t a = 0; a < 12; ++a) {
        for (std::size_t b = a + 1; b < 12; ++b) {
          double squares = 0, count = 0;
          for (std::size_t i = 0; i < pixels * 3; ++i) {
            if (alpha[v * pixels + i / 3] > 127) {
              double const d = (static_cast<double>(images[(a * 3 + v) * pixels * 3 + i]) - images[(b * 3 + v) * pixels * 3 + i]) / 255;
              squares += d * d;
              count += 1;
            }
          }
          ASSERT_GT(count, 0);
          sum += -10 * std::log10(squares / count);
          ++pairs;
        }
      }
    }
  }
  std::printf("mean masked PSNR between two lights: %.2f dB over %d pairs\n", sum / pairs, pairs);
  EXPECT_LE(sum / pairs, 17);
  EXPECT_GE(sum / pairs, 10);
}

TEST_F(GenerateTest, AFinishedFolderIsNotOverwritten) {
  generate_scenes(options("twice"));
  EXPECT_THROW(generate_scenes(options("twice")), DataError);
}

TEST_F(GenerateTest, SenselessCountsAreErrorsThatNameTheOption) {
  SynthOptions o = options("none");
  o.lights = 0;
  try {
    generate_scenes(o);
    FAIL() << "no error";
  } catch (DataError const& error) {
    EXPECT_NE(std::string(error.what()).find("lights is 0"), std::string::npos);
  }
  EXPECT_FALSE(std::filesystem::exists(o.out));
}

}  // namespace
}  // namespace duoflow::data
