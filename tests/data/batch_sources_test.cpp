#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <set>

#include "data/images/environment_map.h"
#include "data/loading/loader.h"
#include "data/loading/scene_lights.h"
#include "data/shards/shard_writer.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

// One sample, filled by hand.
struct Sample {
  Sample(BatchSource const& source, std::uint64_t position) {
    std::vector<std::byte*> destinations;
    for (auto const& field : source.fields()) {
      auto& buffer = bytes[field.name];
      buffer.resize(field.bytes_per_sample());
      destinations.push_back(buffer.data());
    }
    source.fill(position, destinations);
  }
  template <class T>
  std::vector<T> as(std::string const& name) const {
    auto const& buffer = bytes.at(name);
    std::vector<T> values(buffer.size() / sizeof(T));
    std::memcpy(values.data(), buffer.data(), buffer.size());
    return values;
  }
  std::map<std::string, std::vector<std::byte>> bytes;
};

struct Folder {
  explicit Folder(ShardKind kind, std::vector<std::string> const& files) : kind_(kind), files_(files) {}
  void open() {
    write_manifest(folder.path(), kind_, files_);
    index = std::make_shared<ShardIndex const>(folder.path());
    reader = std::make_shared<RawReader const>(index);
  }
  TemporaryFolder folder;
  std::shared_ptr<ShardIndex const> index;
  std::shared_ptr<RawReader const> reader;

 private:
  ShardKind kind_;
  std::vector<std::string> files_;
};

class PairSourceTest : public ::testing::Test {
 protected:
  explicit PairSourceTest(bool alpha = true) {
    write_pair_shard(data.folder / "p0.h5", {.alpha = alpha});
    write_pair_shard(data.folder / "p1.h5", {.alpha = alpha, .salt = 2});
    data.open();
    pairs = std::make_shared<PairSet const>(load_pairs(*data.index));
  }
  std::shared_ptr<BatchSource const> source(std::int64_t targets) const {
    return make_pair_source(data.index, pairs, data.reader, Sampler(3, pairs->pairs.size()), 3, targets);
  }
  std::vector<std::uint8_t> row_of(std::int64_t shard, std::string const& dataset, std::int64_t row) const {
    std::vector<std::uint8_t> bytes(
        data.index->shards()[static_cast<std::size_t>(shard)].datasets.at(dataset).spec.row_bytes());
    data.reader->read(shard, dataset, row, bytes.data());
    return bytes;
  }
  Folder data{ShardKind::pair, {"p0.h5", "p1.h5"}};
  std::shared_ptr<PairSet const> pairs;
};

TEST_F(PairSourceTest, AnEpochHoldsEveryPairWithBothItsRows) {
  auto const all = source(0);
  std::set<std::int64_t> seen;
  for (std::uint64_t position = 0; position < 6; ++position) {
    Sample const sample(*all, position);
    auto const number = sample.as<std::int64_t>("pair").at(0);
    seen.insert(number);
    auto const pair = pairs->pairs.at(static_cast<std::size_t>(number));
    auto const from = pairs->rows.at(static_cast<std::size_t>(pair.x0)),
               to = pairs->rows.at(static_cast<std::size_t>(pair.x1));
    EXPECT_EQ(sample.as<std::uint8_t>("x0"), row_of(from.shard, "latents", from.row));
    EXPECT_EQ(sample.as<std::uint8_t>("x1"), row_of(to.shard, "latents", to.row));
    EXPECT_EQ(sample.as<std::uint8_t>("env"), row_of(to.shard, "env", to.env_row));
    for (auto const* name : {"target_images", "target_alpha", "target_c2w", "target_fxfycxcy", "world_to_norm"})
      EXPECT_EQ(sample.as<std::uint8_t>(name), row_of(to.shard, name, to.row)) << name;
  }
  EXPECT_EQ(seen.size(), 6U);
}

TEST_F(PairSourceTest, DrawnViewsAreDistinctRowsOfTheSamePictureAndCamera) {
  auto const two = source(2), all = source(0);
  std::set<std::vector<std::uint8_t>> first_views;
  for (std::uint64_t position = 0; position < 36; position += 6) {  // one sample of each epoch
    Sample const sample(*two, position), whole(*all, position);
    EXPECT_EQ(sample.bytes, Sample(*two, position).bytes);
    std::vector<std::size_t> views;
    for (std::size_t i = 0; i < 2; ++i)
      for (std::size_t view = 0; view < 3; ++view) {
        auto const same = [&](char const* name) {
          auto const &part = sample.bytes.at(name), &full = whole.bytes.at(name);
          auto const bytes = full.size() / 3;
          return std::memcmp(&part[i * bytes], &full[view * bytes], bytes) == 0;
        };
        if (!same("target_images")) continue;
        views.push_back(view);
        EXPECT_TRUE(same("target_alpha"));
        EXPECT_TRUE(same("target_c2w"));
        EXPECT_TRUE(same("target_fxfycxcy"));
      }
    ASSERT_EQ(views.size(), 2U);
    EXPECT_NE(views[0], views[1]);
    first_views.insert({static_cast<std::uint8_t>(views[0]), static_cast<std::uint8_t>(views[1])});
  }
  EXPECT_GT(first_views.size(), 1U);
}

class PairSourceWithoutAlphaTest : public PairSourceTest {
 protected:
  PairSourceWithoutAlphaTest() : PairSourceTest(false) {}
};

TEST_F(PairSourceWithoutAlphaTest, AlphaIsOpaque) {
  EXPECT_EQ(Sample(*source(2), 0).as<std::uint8_t>("target_alpha"), std::vector<std::uint8_t>(2 * 4 * 5, 255));
}

TEST_F(PairSourceTest, MoreViewsThanThereAreIsAnError) {
  EXPECT_TRUE(says(data_error_of([&] { source(4); }), {"4 target views", "have 3"}));
  EXPECT_TRUE(says(data_error_of([&] { make_pair_source(data.index, pairs, data.reader, Sampler(1, 5), 1, 0); }),
                   {"5 samples", "6 pairs"}));
}

class SceneSourceTest : public ::testing::Test {
 protected:
  SceneSourceTest() {
    write_scene_shard(data.folder / "s0.h5", {});
    write_scene_shard(data.folder / "s1.h5", {.salt = 2});
    data.open();
    scenes = std::make_shared<SceneSet const>(load_scenes(*data.index));
  }
  std::shared_ptr<BatchSource const> source(ViewSelection const& views) const {
    return make_scene_source(data.index, scenes, data.reader, Sampler(3, scenes->scenes.size()), 3, views);
  }
  // The frames of the scene whose pictures (field `images`) are in the sample.
  std::vector<std::int64_t> frames_of(Sample const& sample, std::string const& images) const {
    auto const& scene = scenes->scenes.at(static_cast<std::size_t>(sample.as<std::int64_t>("scene").at(0)));
    std::size_t const bytes = 4 * 4 * 3;
    std::vector<std::uint8_t> picture(bytes);
    std::vector<std::int64_t> frames;
    for (std::size_t i = 0; i < sample.bytes.at(images).size(); i += bytes)
      for (std::int64_t frame = 0; frame < scene.frame_count; ++frame) {
        data.reader->read(scene.shard, "images", scene.first_frame + frame, picture.data());
        if (std::memcmp(picture.data(), &sample.bytes.at(images)[i], bytes) == 0) frames.push_back(frame);
      }
    return frames;
  }
  Folder data{ShardKind::scene, {"s0.h5", "s1.h5"}};
  std::shared_ptr<SceneSet const> scenes;
};

using Frames = std::vector<std::int64_t>;

TEST_F(SceneSourceTest, FixedInputsAndHeldOutTargetsAreAsAsked) {
  auto const fixed = source(
      {.inputs = 2, .targets = 2, .input_frames = {3, 0}, .target_frames = {0, 2, 4}, .target_has_input = false});
  for (std::uint64_t position = 0; position < 8; ++position) {
    Sample const sample(*fixed, position);
    EXPECT_EQ(frames_of(sample, "input_images"), (Frames{3, 0}));
    auto const targets = frames_of(sample, "target_images");
    EXPECT_EQ(std::set<std::int64_t>(targets.begin(), targets.end()), (std::set<std::int64_t>{2, 4}));
  }
}

TEST_F(SceneSourceTest, DrawnViewsAreDistinctAndChangeWithThePosition) {
  auto const drawn =
      source({.inputs = 2, .targets = 3, .input_frames = {}, .target_frames = {}, .target_has_input = false});
  std::set<Frames> seen;
  for (std::uint64_t position = 0; position < 16; ++position) {
    Sample const sample(*drawn, position);
    auto frames = frames_of(sample, "input_images");
    auto const targets = frames_of(sample, "target_images");
    EXPECT_EQ(frames.size(), 2U);
    frames.insert(frames.end(), targets.begin(), targets.end());
    EXPECT_EQ(std::set<std::int64_t>(frames.begin(), frames.end()).size(), 5U);
    seen.insert(frames);
  }
  EXPECT_GT(seen.size(), 8U);
}

std::vector<float> cameras_of(auto const& scene, Frames const& frames) {
  std::vector<float> rows;
  for (auto const frame : frames)
    rows.insert(rows.end(), scene.c2w.begin() + 16 * frame, scene.c2w.begin() + 16 * (frame + 1));
  return rows;
}

TEST_F(SceneSourceTest, CamerasAreNormalisedOverTheInputsAlone) {
  auto const any =
      source({.inputs = 3, .targets = 2, .input_frames = {}, .target_frames = {}, .target_has_input = true});
  Sample const sample(*any, 1);
  auto const& scene = scenes->scenes.at(static_cast<std::size_t>(sample.as<std::int64_t>("scene").at(0)));
  auto const gather = [&](Frames const& frames) { return cameras_of(scene, frames); };
  auto const inputs = frames_of(sample, "input_images"), targets = frames_of(sample, "target_images");
  auto const normalisation = normalise_over(gather(inputs));
  EXPECT_EQ(sample.as<float>("input_c2w"), data::apply(normalisation, gather(inputs)));
  EXPECT_EQ(sample.as<float>("target_c2w"), data::apply(normalisation, gather(targets)));
  auto const fxfycxcy = sample.as<float>("target_fxfycxcy");
  for (std::size_t i = 0; i < 8; ++i)
    EXPECT_EQ(fxfycxcy[i], scene.fxfycxcy[4 * static_cast<std::size_t>(targets[i / 4]) + i % 4]);
}

TEST_F(SceneSourceTest, CamerasAreNormalisedOverInputsAndTargetsWhereAsked) {
  auto const fixed = source({.inputs = 3,
                             .targets = 2,
                             .input_frames = {3, 0, 1},
                             .target_frames = {0, 4},
                             .target_has_input = true,
                             .normalise_over_targets = true});
  Sample const sample(*fixed, 1);
  auto const& scene = scenes->scenes.at(static_cast<std::size_t>(sample.as<std::int64_t>("scene").at(0)));
  auto const gather = [&](Frames const& frames) { return cameras_of(scene, frames); };
  auto const normalisation = normalise_over(gather({3, 0, 1, 4}));  // frame 0 counts once
  EXPECT_EQ(sample.as<float>("input_c2w"), data::apply(normalisation, gather({3, 0, 1})));
  EXPECT_EQ(sample.as<float>("target_c2w"), data::apply(normalisation, gather(frames_of(sample, "target_images"))));
}

TEST_F(SceneSourceTest, ASceneWithTooFewFramesIsNamed) {
  auto const error = [&](ViewSelection const& views) { return data_error_of([&] { source(views); }); };
  EXPECT_TRUE(says(error({.inputs = 6, .targets = 1}), {"s0.h5", "object_1", "5 frames", "6 input views"}));
  EXPECT_TRUE(says(error({.inputs = 2, .targets = 6}), {"object_1", "6 target views"}));
  EXPECT_TRUE(
      says(error({.inputs = 3, .targets = 3, .input_frames = {}, .target_frames = {}, .target_has_input = false}),
           {"object_1", "3 target views", "2 to draw from"}));
  EXPECT_TRUE(says(error({.inputs = 1, .targets = 1, .input_frames = {5}}), {"object_1", "frame 5"}));
  EXPECT_TRUE(says(error({.inputs = 2, .targets = 1, .input_frames = {5}}), {"1 input frames", "2 input views"}));
  EXPECT_TRUE(says(error({.inputs = 2, .targets = 1, .input_frames = {1, 1}}), {"[1,1]", "twice"}));
}

// The first scenes of both shards as one object under two lights.
class ScenePairSourceTest : public SceneSourceTest {
 protected:
  ScenePairSourceTest() {
    SceneSet two = *scenes;
    two.scenes = {scenes->scenes.at(0), scenes->scenes.at(2)};
    two.scenes[0].object = two.scenes[1].object = "cat";
    two.scenes[0].light = "noon", two.scenes[1].light = "dusk";
    scenes = std::make_shared<SceneSet const>(std::move(two));
  }
  std::shared_ptr<BatchSource const> pairs(ViewSelection const& views) const {
    auto found = light_pairs(*scenes);
    return make_scene_pair_source(data.index, scenes, found, data.reader, Sampler(3, found.size()), 3, views, 8);
  }
  std::vector<std::uint8_t> picture(SceneEntry const& scene, std::int64_t frame) const {
    std::vector<std::uint8_t> pixels(4 * 4 * 3);
    data.reader->read(scene.shard, "images", scene.first_frame + frame, pixels.data());
    return pixels;
  }
};

TEST_F(ScenePairSourceTest, InputsAreUnderTheFirstLightAndAllElseUnderTheSecond) {
  auto const source = pairs({.inputs = 2, .targets = 1, .input_frames = {4, 1}, .target_frames = {3}});
  std::set<std::int64_t> seen;
  for (std::uint64_t position = 0; position < 2; ++position) {
    Sample const sample(*source, position);
    auto const number = sample.as<std::int64_t>("scene").at(0);
    auto const pair = light_pairs(*scenes).at(static_cast<std::size_t>(number));
    auto const &from = scenes->scenes.at(static_cast<std::size_t>(pair.x0)),
               &to = scenes->scenes.at(static_cast<std::size_t>(pair.x1));
    seen.insert(number);
    auto inputs = picture(from, 4), relit = picture(to, 4);
    auto const second_input = picture(from, 1), second_relit = picture(to, 1);
    inputs.insert(inputs.end(), second_input.begin(), second_input.end());
    relit.insert(relit.end(), second_relit.begin(), second_relit.end());
    EXPECT_EQ(sample.as<std::uint8_t>("input_images"), inputs);
    EXPECT_EQ(sample.as<std::uint8_t>("relit_images"), relit);
    EXPECT_NE(inputs, relit);
    EXPECT_EQ(sample.as<std::uint8_t>("target_images"), picture(to, 3));
    auto const map = scene_light(*data.reader, *scenes, to, 8);
    auto const env = sample.as<std::uint16_t>("env");
    ASSERT_EQ(env.size(), map.pixels.size());
    for (std::size_t i = 0; i < env.size(); ++i) EXPECT_EQ(env[i], to_half(map.pixels[i]));
    std::vector<float> cameras(from.c2w.begin() + 16 * 4, from.c2w.begin() + 16 * 5);
    cameras.insert(cameras.end(), from.c2w.begin() + 16, from.c2w.begin() + 32);
    EXPECT_EQ(sample.as<float>("world_to_norm"), world_to_norm(normalise_over(cameras)));
  }
  EXPECT_EQ(seen, (std::set<std::int64_t>{0, 1}));
}

TEST_F(ScenePairSourceTest, PairsAreOrderedAndOfOneObjectUnderOtherBaseMaps) {
  SceneSet set = *scenes;
  auto const add = [&](std::string const& object, std::string const& light) {
    set.scenes.push_back(set.scenes.front());
    set.scenes.back().object = object, set.scenes.back().light = light;
  };
  add("cat", "env_0_0"), add("cat", "env_0_1"), add("ape", "noon");
  std::vector<std::pair<std::string, std::string>> named;
  for (auto const& pair : light_pairs(set))
    named.emplace_back(set.scenes[static_cast<std::size_t>(pair.x0)].light,
                       set.scenes[static_cast<std::size_t>(pair.x1)].light);
  EXPECT_EQ(named, (std::vector<std::pair<std::string, std::string>>{{"dusk", "env_0_0"},
                                                                     {"dusk", "env_0_1"},
                                                                     {"dusk", "noon"},
                                                                     {"env_0_0", "dusk"},
                                                                     {"env_0_0", "noon"},
                                                                     {"env_0_1", "dusk"},
                                                                     {"env_0_1", "noon"},
                                                                     {"noon", "dusk"},
                                                                     {"noon", "env_0_0"},
                                                                     {"noon", "env_0_1"}}));
}

TEST_F(ScenePairSourceTest, AnObjectWithOtherFramesUnderAnotherLightOrWithOneLightIsAnError) {
  SceneSet set = *scenes;
  set.scenes[1].frame_count = 5;
  EXPECT_TRUE(says(data_error_of([&] { light_pairs(set); }), {"cat", "6 frames under light noon", "5 under dusk"}));
  set.scenes.pop_back();
  EXPECT_TRUE(says(data_error_of([&] { light_pairs(set); }), {"no object has two lights"}));
}

}  // namespace
}  // namespace duoflow::data::testing
