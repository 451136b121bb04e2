#include "launch/training_data.h"

#include <gtest/gtest.h>

#include "data/error.h"
#include "data/shards/shard_writer.h"
#include "tests/data/sample_folders.h"

namespace duoflow::launch {
namespace {

TrainingConfig sizes(std::int64_t global_batch, std::int64_t per_rank, std::int64_t accumulate = 1) {
  TrainingConfig config;
  config.global_batch_size = global_batch;
  config.batch_size_per_gpu = per_rank;
  config.grad_accum_steps = accumulate;
  return config;
}

TEST(TrainingDataTest, RanksPartitionTheGlobalBatchAndMicroStepsARanksPart) {
  for (int size = 1; size <= 8; ++size)
    for (std::int64_t global_batch : {8, 9, 13, 64})
      for (std::int64_t per_rank : {1, 3, 4, 100}) {
        std::int64_t next = 0;
        for (int rank = 0; rank < size; ++rank) {
          SCOPED_TRACE(testing::Message()
                       << "rank " << rank << " of " << size << ", G = " << global_batch << ", at most " << per_rank);
          auto const plan = plan_batches(sizes(global_batch, per_rank), {}, rank, size);
          EXPECT_EQ(plan.global_batch, global_batch);
          EXPECT_EQ(plan.first, next);
          next += plan.samples;
          EXPECT_GE(plan.samples, global_batch / size);
          EXPECT_LE(plan.samples, (global_batch + size - 1) / size);
          EXPECT_LE(plan.micro_batch, per_rank);
          EXPECT_GE(plan.micro_steps * plan.micro_batch, plan.samples);
          EXPECT_LT((plan.micro_steps - 1) * plan.micro_batch, plan.samples) << "a micro-step has no samples";
        }
        EXPECT_EQ(next, global_batch);
      }
}

TEST(TrainingDataTest, WithoutAGlobalBatchItIsTheProductOfRanksMicroStepsAndSamples) {
  auto const plan = plan_batches(sizes(0, 4, 3), {}, 1, 2);
  EXPECT_EQ(plan.global_batch, 24);
  EXPECT_EQ(plan.first, 12);
  EXPECT_EQ(plan.micro_steps, 3);
  EXPECT_EQ(plan.micro_batch, 4);
}

TEST(TrainingDataTest, AGlobalBatchSmallerThanTheRanksIsAnError) {
  EXPECT_NO_THROW(plan_batches(sizes(3, 8), {}, 2, 3));
  try {
    plan_batches(sizes(3, 8), {}, 0, 4);
    ADD_FAILURE();
  } catch (ConfigError const& error) {
    EXPECT_TRUE(data::testing::says(error.what(), {"training.global_batch_size = 3", "4"}));
  }
}

// A folder of one pair shard: 4 rows (2 objects under 2 lights), 3 pairs, square pictures of 4 pixels.
class PairFolder {
 public:
  PairFolder() {
    data::testing::PairShard shard;
    shard.width = shard.height;
    data::testing::write_pair_shard(folder / "pairs.h5", shard);
    data::write_manifest(folder.path(), data::ShardKind::pair, {"pairs.h5"});
  }
  data::testing::TemporaryFolder folder;
};

Config pair_config() {
  Config config;
  config.model.n_latent_vectors = 3;
  config.model.d = 2;
  config.model.image_size = 4;
  config.training.global_batch_size = 2;
  return config;
}

std::string open_error(std::string const& folder, Config const& config, int size = 1) {
  return data::testing::data_error_of([&] { TrainingData({{folder}}, config, 0, size, 0, false); });
}

TEST(TrainingDataTest, PairsAreReadStepAfterStep) {
  PairFolder const pairs;
  TrainingData training({{pairs.folder.path()}}, pair_config(), 0, 1, 0, false);
  EXPECT_EQ(training.samples(), 3u);
  ASSERT_NE(training.folders().front().pairs, nullptr);
  for (std::uint64_t step = 0; step < 4; ++step) {
    auto const batch = training.next();
    EXPECT_EQ(batch.first_position, 2 * step);
    EXPECT_EQ(batch.samples, 2);
    training.release(batch);
  }
}

TEST(TrainingDataTest, AResumedRunStartsBehindTheSamplesItConsumed) {
  PairFolder const pairs;
  auto config = pair_config();
  config.training.global_batch_size = 5;
  config.training.batch_size_per_gpu = 2;
  TrainingData training({{pairs.folder.path()}}, config, 1, 2, 7 * 5, false);  // positions 38 and 39
  auto const batch = training.next();
  EXPECT_EQ(batch.first_position, 7u * 5u + 3u);
  EXPECT_EQ(batch.samples, 2);
  training.release(batch);
}

TEST(TrainingDataTest, SizesOtherThanTheConfigsAreErrors) {
  PairFolder const pairs;
  auto config = pair_config();
  config.model.n_latent_vectors = 5;
  EXPECT_TRUE(data::testing::says(open_error(pairs.folder.path(), config),
                                  {pairs.folder.path(), "is 3", "model.transformer.n_latent_vectors is 5"}));
  config = pair_config();
  config.model.d = 4;
  EXPECT_TRUE(data::testing::says(open_error(pairs.folder.path(), config), {"is 2", "model.transformer.d is 4"}));
  config = pair_config();
  config.model.image_size = 8;
  EXPECT_TRUE(
      data::testing::says(open_error(pairs.folder.path(), config), {"is 4", "model.image_tokenizer.image_size is 8"}));
}

TEST(TrainingDataTest, TheOtherKindOfShardIsAnError) {
  PairFolder const pairs;
  auto config = pair_config();
  config.objective = "reconstruction";
  EXPECT_TRUE(data::testing::says(open_error(pairs.folder.path(), config),
                                  {pairs.folder.path(), "pair", "reconstruction", "scene"}));
  data::testing::TemporaryFolder const scenes;
  data::testing::write_scene_shard(scenes / "scenes.h5", {});
  data::write_manifest(scenes.path(), data::ShardKind::scene, {"scenes.h5"});
  EXPECT_TRUE(data::testing::says(open_error(scenes.path(), pair_config()), {scenes.path(), "scene", "joint", "pair"}));
}

TEST(TrainingDataTest, FewerSamplesThanRanksIsAnError) {
  PairFolder const pairs;
  auto config = pair_config();
  config.training.global_batch_size = 8;
  EXPECT_TRUE(
      data::testing::says(open_error(pairs.folder.path(), config, 4), {pairs.folder.path(), "3 samples for 4 ranks"}));
}

TEST(TrainingDataTest, ExcludingEveryLightLeavesNoSamples) {
  data::testing::TemporaryFolder const scenes;
  data::testing::write_scene_shard(scenes / "scenes.h5", {});
  data::write_manifest(scenes.path(), data::ShardKind::scene, {"scenes.h5"});
  Config config;
  config.objective = "reconstruction";
  config.model.image_size = 4;
  config.data.exclude_lights = "*";
  EXPECT_TRUE(data::testing::says(open_error(scenes.path(), config),
                                  {scenes.path(), "data.exclude_lights = *", "none of its 2 scenes"}));
  config.objective = "joint";
  config.latents = "online";
  config.data.exclude_lights = "light_1";
  EXPECT_TRUE(data::testing::says(open_error(scenes.path(), config), {scenes.path(), "no object has two lights"}));
}

TEST(TrainingDataTest, AFolderWithoutPairsIsAnErrorNamingIt) {
  data::testing::TemporaryFolder const empty;
  data::testing::write_pair_shard(empty / "pairs.h5", {.height = 4, .width = 4, .pairs = {}});
  data::write_manifest(empty.path(), data::ShardKind::pair, {"pairs.h5"});
  PairFolder const pairs;
  auto const error = data::testing::data_error_of([&] {
    TrainingData({{pairs.folder.path()}, {empty.path()}}, pair_config(), 0, 1, 0, false);
  });
  EXPECT_TRUE(data::testing::says(error, {empty.path(), "4 rows and no pair"}));
}

}  // namespace
}  // namespace duoflow::launch
