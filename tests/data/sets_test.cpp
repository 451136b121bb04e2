// load_scenes and load_pairs.

#include <cmath>

#include "data/shards/shard_index.h"
#include "data/shards/shard_writer.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

class PairSetTest : public ::testing::Test {
 protected:
  PairSet load(PairShard const& a, PairShard const& b) const {
    write_pair_shard(folder / "a.h5", a);
    write_pair_shard(folder / "b.h5", b);
    write_manifest(folder.path(), ShardKind::pair, {"a.h5", "b.h5"});
    return load_pairs(ShardIndex(folder.path()));
  }
  std::string error(PairShard const& a, PairShard const& b) const {
    return data_error_of([&] { load(a, b); });
  }
  TemporaryFolder folder;
};

TEST_F(PairSetTest, RowsOfLaterShardsFollowThoseOfEarlierOnes) {
  auto const set = load({}, {.salt = 2});
  ASSERT_EQ(set.rows.size(), 8U);
  ASSERT_EQ(set.pairs.size(), 6U);
  EXPECT_EQ(set.rows[5].shard, 1);
  EXPECT_EQ(set.rows[5].row, 1);
  EXPECT_EQ(set.rows[5].env_row, 1);
  EXPECT_EQ(set.rows[5].view_set, 7);
  EXPECT_EQ(set.rows[6].object, "object_1");
  EXPECT_EQ(set.rows[5].light, "light_1");
  EXPECT_EQ(set.pairs[3].x0, 4);
  EXPECT_EQ(set.pairs[3].x1, 5);
  EXPECT_EQ(set.tokens, 3);
  EXPECT_EQ(set.dim, 2);
  EXPECT_EQ(set.targets, 3);
  EXPECT_EQ(set.height, 4);
  EXPECT_EQ(set.width, 5);
  EXPECT_EQ(set.env_height, 2);
  EXPECT_EQ(set.env_width, 4);
  EXPECT_EQ(set.latent_dtype, DType::bf16);
  EXPECT_TRUE(set.has_alpha);
  EXPECT_EQ(set.producer, "producer-a");
}

TEST_F(PairSetTest, LatentStatisticsArePooledOverRows) {
  PairShard a, b;  // 4 rows and 2 rows
  b.rows = 2;
  b.pairs = {0, 1};
  a.mean = {1, 0};
  a.deviation = {2, 1};
  b.mean = {4, 0};
  b.deviation = {1, 1};
  auto const set = load(a, b);
  EXPECT_FLOAT_EQ(set.latent_mean[0], 2);  // (4*1 + 2*4) / 6
  // E[x^2] = (4*(4+1) + 2*(1+16)) / 6 = 9, less 2^2
  EXPECT_FLOAT_EQ(set.latent_std[0], std::sqrt(5.0F));
  EXPECT_FLOAT_EQ(set.latent_mean[1], 0);
  EXPECT_FLOAT_EQ(set.latent_std[1], 1);
}

TEST_F(PairSetTest, ShardsThatDoNotMixAreNamed) {
  EXPECT_TRUE(says(error({}, {.producer = "producer-b"}), {"b.h5", "a.h5", "producer-a", "producer-b"}));
  EXPECT_TRUE(says(error({}, {.tokens = 4}), {"b.h5", "a.h5", "tokens", "4", "3"}));
  EXPECT_TRUE(says(error({}, {.latent_dtype = DType::f16}), {"b.h5", "latent type"}));
  EXPECT_TRUE(says(error({}, {.alpha = false}), {"b.h5", "alpha"}));
  EXPECT_TRUE(says(error({}, {.mean = {}, .deviation = {}}), {"b.h5", "has no latent statistics"}));
  EXPECT_TRUE(says(error({}, {.mean = {1, 2, 3}, .deviation = {1, 2, 3}}), {"b.h5", "latent_mean", "3", "2 needed"}));
}

TEST_F(PairSetTest, TablesThatPointNowhereAreNamed) {
  EXPECT_TRUE(says(error({}, {.pairs = {0, 1, 0, 4}}), {"b.h5", "pair 1", "rows 0 and 4", "has 4"}));
  EXPECT_TRUE(says(error({}, {.pairs = {0, 2}}), {"b.h5", "pair 0", "object_0", "object_1"}));
  EXPECT_TRUE(says(error({}, {.env_row_of_row_0 = 2}), {"b.h5", "row 0", "env_row 2", "2 maps"}));
}

TEST_F(PairSetTest, ASceneFolderIsSentToEncode) {
  write_scene_shard(folder / "s.h5", {});
  write_manifest(folder.path(), ShardKind::scene, {"s.h5"});
  EXPECT_TRUE(says(data_error_of([&] { load_pairs(ShardIndex(folder.path())); }), {folder.path(), "scene shards", "encode"}));
}

TEST(SceneSetTest, ScenesOfAllShardsAreListedWithTheirCameras) {
  TemporaryFolder const folder;
  write_scene_shard(folder / "a.h5", {});
  write_scene_shard(folder / "b.h5", {.frame_counts = {1}, .salt = 2});
  write_manifest(folder.path(), ShardKind::scene, {"a.h5", "b.h5"});
  auto const set = load_scenes(ShardIndex(folder.path()));
  ASSERT_EQ(set.scenes.size(), 3U);
  auto const& second = set.scenes[1];
  EXPECT_EQ(second.object, "object_1");
  EXPECT_EQ(second.light, "light_1");
  EXPECT_EQ(second.first_frame, 6);
  EXPECT_EQ(second.frame_count, 5);
  EXPECT_EQ(second.env_row, 1);
  ASSERT_EQ(second.c2w.size(), 80U);
  EXPECT_FLOAT_EQ(second.c2w[3], 2.6F);  // camera 6
  EXPECT_EQ(second.fxfycxcy.size(), 20U);
  EXPECT_EQ(set.scenes[2].shard, 1);
  EXPECT_EQ(set.scenes[2].first_frame, 0);
  EXPECT_EQ(set.env_width, 4);
  EXPECT_TRUE(set.has_alpha);
  EXPECT_FALSE(set.env_per_frame);
}

TEST(SceneSetTest, AMissingDatasetIsNamed) {
  TemporaryFolder const folder;
  {
    ShardWriter writer(folder / "a.h5", ShardKind::scene, {{"images", DType::u8, {0, 4, 4, 3}}}, {});
    writer.close();
  }
  write_manifest(folder.path(), ShardKind::scene, {"a.h5"});
  EXPECT_TRUE(says(data_error_of([&] { load_scenes(ShardIndex(folder.path())); }), {"a.h5", "scene/first_frame"}));
}

TEST(SceneSetTest, MapsPerFrameAreAccepted) {
  TemporaryFolder const folder;
  std::vector<std::uint8_t> const bytes(2 * 4 * 4 * 3, 9);
  std::vector<float> const zeros(64, 0.5F);
  std::int64_t const zero = 0, two = 2, none = -1;
  ShardWriter writer(folder / "a.h5", ShardKind::scene,
                     {{"images", DType::u8, {2, 4, 4, 3}},
                      {"env_ldr", DType::u8, {2, 2, 4, 3}},
                      {"env_hdr", DType::u8, {2, 2, 4, 3}},
                      {"c2w", DType::f32, {2, 4, 4}},
                      {"fxfycxcy", DType::f32, {2, 4}},
                      {"scene/object", DType::name, {1}},
                      {"scene/light", DType::name, {1}},
                      {"scene/first_frame", DType::i64, {1}},
                      {"scene/frame_count", DType::i64, {1}},
                      {"scene/env_row", DType::i64, {1}},
                      {"scene/env_rotation", DType::f32, {1, 3, 3}}},
                     {});
  for (auto const* name : {"images", "env_ldr", "env_hdr"}) writer.write(name, 0, 2, bytes.data());
  writer.write("c2w", 0, 2, zeros.data());
  writer.write("fxfycxcy", 0, 2, zeros.data());
  writer.write_names("scene/object", {"o"});
  writer.write_names("scene/light", {std::string(64, 'l')});  // exactly as long as a name may be
  writer.write("scene/first_frame", 0, 1, &zero);
  writer.write("scene/frame_count", 0, 1, &two);
  writer.write("scene/env_row", 0, 1, &none);
  writer.write("scene/env_rotation", 0, 1, zeros.data());
  writer.close();
  write_manifest(folder.path(), ShardKind::scene, {"a.h5"});
  auto const set = load_scenes(ShardIndex(folder.path()));
  EXPECT_TRUE(set.env_per_frame);
  EXPECT_FALSE(set.has_alpha);
  EXPECT_EQ(set.env_height, 2);
  EXPECT_EQ(set.scenes.at(0).env_row, -1);
  EXPECT_EQ(set.scenes.at(0).light, std::string(64, 'l'));
}

}  // namespace
}  // namespace duoflow::data::testing
