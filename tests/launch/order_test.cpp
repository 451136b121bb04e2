// The order of a run, as the ranks read it: the same samples with the same random numbers at any number of ranks and
// threads, whatever it was resumed from.
#include <cstring>
#include <functional>
#include <map>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/shards/shard_writer.h"
#include "launch/batches.h"
#include "launch/training_data.h"
#include "tests/data/sample_folders.h"

namespace duoflow::launch {
namespace {

using data::testing::data_error_of;
using data::testing::says;

// Two rows an object, and both ordered pairs of each.
data::testing::PairShard shard_of(std::int64_t rows, std::uint64_t salt) {
  data::testing::PairShard shard;
  shard.rows = rows;
  shard.width = shard.height;
  shard.salt = salt;
  shard.pairs.clear();
  for (std::int64_t row = 0; row < rows; row += 2) shard.pairs.insert(shard.pairs.end(), {row, row + 1, row + 1, row});
  return shard;
}

class Pairs {
 public:
  explicit Pairs(data::testing::PairShard const& shard) {
    data::testing::write_pair_shard(folder_ / "pairs.h5", shard);
    data::write_manifest(folder_.path(), data::ShardKind::pair, {"pairs.h5"});
  }
  std::string const& path() const { return folder_.path(); }

 private:
  data::testing::TemporaryFolder folder_;
};

// Every choice that is drawn per sample is on: two of three target views, times, noise, lights that are left out.
Config order_config() {
  Config config;
  config.model.n_latent_vectors = 3;
  config.model.d = 2;
  config.model.image_size = 4;
  config.model.env_height = 2;
  config.training.num_target_views = 2;
  config.training.global_batch_size = 8;
  config.training.batch_size_per_gpu = 3;
  config.training.light_dropout = 0.5;
  config.flow.path = "bridge_sqrt";
  config.flow.path_sigma = 0.1;
  config.data.verify = "never";
  return config;
}

// A sample's place in the order, and a hash of everything it brings: its bytes, t, noise, whether it sees its light.
using Read = std::vector<std::pair<std::int64_t, std::size_t>>;

// What launch draws for each sample of a batch of pairs; scenes have nothing but their views.
std::vector<at::Tensor> drawn_for(data::Batch const& batch, data::BatchSource const& source, Config const& config) {
  if (config.objective == "reconstruction") return {};
  auto const joint = joint_batch(batch, source, config, model::LightEncoding::lvsm, at::kCPU);
  return {joint.t, joint.noise, joint.light_kept};
}

std::size_t hash_of(data::Batch const& batch, data::BatchSource const& source, std::vector<at::Tensor> const& drawn,
                    std::int64_t i) {
  std::string bytes;
  auto const add = [&](void const* begin, std::size_t count) { bytes.append(static_cast<char const*>(begin), count); };
  for (auto const& field : source.fields())
    add(batch.fields.at(field.name) + static_cast<std::size_t>(i) * field.bytes_per_sample(), field.bytes_per_sample());
  for (auto const& numbers : drawn) {
    auto const own = numbers.select(0, i).contiguous();
    add(own.const_data_ptr(), own.nbytes());
  }
  return std::hash<std::string>()(bytes);
}

// `steps` steps from `position`, in the order of the global batch.
Read read_steps(std::vector<DataFolder> const& folders, Config config, int ranks, int threads, std::int64_t position,
                int steps) {
  config.data.threads = threads;
  std::vector<std::unique_ptr<TrainingData>> data;
  for (int rank = 0; rank < ranks; ++rank)
    data.push_back(std::make_unique<TrainingData>(folders, config, rank, ranks, position, false));
  Read read;
  for (int step = 0; step < steps; ++step)
    for (auto const& own : data)
      for (std::int64_t micro = 0; micro < own->plan().micro_steps; ++micro) {
        auto const batch = own->next();
        auto const drawn = drawn_for(batch, own->source(), config);
        auto const positions = positions_of(batch);
        for (std::int64_t i = 0; i < batch.samples; ++i)
          read.emplace_back(positions[static_cast<std::size_t>(i)], hash_of(batch, own->source(), drawn, i));
        own->release(batch);
      }
  return read;
}

class OrderTest : public testing::Test {
 protected:
  Pairs a_{shard_of(12, 1)}, b_{shard_of(6, 2)};
  std::vector<DataFolder> one_{{a_.path()}}, two_{{a_.path(), 3}, {b_.path(), 2}};

  static Config with_blocks(Config config) {
    config.data.shuffle = "block";
    config.data.shuffle_block_mib = 0.005;  // a few of the twelve samples
    config.data.shuffle_window_mib = 0.01;
    return config;
  }
  static Config with_skips(Config config) {
    config.data.skip = {"5-6", "14-30", "39"};
    return config;
  }
  // Resumes come mid-epoch, at the end of the first (position 24 of 12 samples is the end of the second) and later.
  static void expect_elastic(std::vector<DataFolder> const& folders, Config const& config) {
    int const steps = 6;
    auto const whole = read_steps(folders, config, 1, 1, 0, steps);
    ASSERT_EQ(whole.size(), 48u);
    for (int const ranks : {1, 2, 3, 4, 8})
      for (int const threads : {1, 2, 4})
        EXPECT_EQ(read_steps(folders, config, ranks, threads, 0, steps), whole)
            << ranks << " ranks x " << threads << " threads";
    std::map<std::int64_t, std::size_t> const by_position(whole.begin(), whole.end());
    std::int64_t position = 0;
    for (int step = 1; step < steps; ++step) {
      TrainingData const data(folders, config, 0, 1, 0, false);
      position = data.position_after_step(position);
      EXPECT_EQ(position, whole[static_cast<std::size_t>(8 * step - 1)].first + 1);
      for (int const ranks : {1, 2, 3, 4, 8})
        EXPECT_EQ(read_steps(folders, config, ranks, 1 + step % 2, position, steps - step),
                  Read(whole.begin() + 8 * step, whole.end()))
            << "resumed at " << position << " on " << ranks << " ranks";
    }
    auto other_batch = config;
    other_batch.training.global_batch_size = 11;
    for (std::int64_t start = 0; start < 24; start += 5) {
      auto const read = read_steps(folders, other_batch, 2, 2, start, 2);
      auto next = by_position.lower_bound(start);
      for (auto const& sample : read) {
        if (next == by_position.end()) break;
        EXPECT_EQ(sample, (std::pair<std::int64_t, std::size_t>(*next++))) << "another global batch from " << start;
      }
    }
  }
};

TEST_F(OrderTest, OneFolderIsElastic) { expect_elastic(one_, order_config()); }
TEST_F(OrderTest, BlocksAreElastic) { expect_elastic(one_, with_blocks(order_config())); }
TEST_F(OrderTest, AMixtureIsElastic) { expect_elastic(two_, order_config()); }
TEST_F(OrderTest, SkippedSamplesAreElastic) { expect_elastic(one_, with_skips(order_config())); }
TEST_F(OrderTest, AMixtureOfBlocksWithSkippedSamplesIsElastic) {
  expect_elastic(two_, with_skips(with_blocks(order_config())));
}

TEST_F(OrderTest, ScenesOfAMixtureAreElastic) {
  data::testing::TemporaryFolder const first, second;
  std::uint64_t salt = 0;
  for (auto const* folder : {&first, &second}) {
    data::testing::SceneShard shard;
    shard.frame_counts.assign(7 - 2 * salt, 6);
    shard.salt = ++salt;
    data::testing::write_scene_shard(*folder / "scenes.h5", shard);
    data::write_manifest(folder->path(), data::ShardKind::scene, {"scenes.h5"});
  }
  auto config = with_skips(with_blocks(order_config()));
  config.objective = "reconstruction";
  config.training.num_input_views = 2;
  expect_elastic({{first.path()}, {second.path()}}, config);
}

// As before there were blocks, mixtures and skips: checkpoints hold only the position.
TEST_F(OrderTest, OneFolderIsInTheSamplersOrder) {
  TrainingData data(one_, order_config(), 0, 1, 0, false);
  data::Sampler const sampler(order_config().training.seed, 12);
  for (int micro = 0; micro < 18; ++micro) {
    auto const batch = data.next();
    auto const pairs = field_tensor(batch, data.source(), "pair");
    auto const positions = positions_of(batch);
    for (std::int64_t i = 0; i < batch.samples; ++i) {
      EXPECT_EQ(positions[static_cast<std::size_t>(i)], batch.first_position + static_cast<std::uint64_t>(i));
      EXPECT_EQ(pairs[i].item<std::int64_t>(),
                static_cast<std::int64_t>(sampler.index_at(positions[static_cast<std::size_t>(i)])));
    }
    data.release(batch);
  }
}

TEST_F(OrderTest, SkippingLeavesTheOtherSamplesAsTheyWere) {
  auto const plain = read_steps(two_, order_config(), 1, 1, 0, 9),
             rest = read_steps(two_, with_skips(order_config()), 2, 1, 0, 6);
  std::map<std::int64_t, std::size_t> const before(plain.begin(), plain.end());
  std::set<std::int64_t> left;
  for (auto const& [position, hash] : rest) {
    EXPECT_EQ(before.at(position), hash) << position;
    left.insert(position);
  }
  for (std::int64_t p = 0; p < 60; ++p)
    EXPECT_EQ(left.contains(p), !(p == 5 || p == 6 || (p >= 14 && p <= 30) || p == 39)) << p;
}

TEST_F(OrderTest, ASkipMayBeGivenWhenItIsNeeded) {
  // A run at position 16 is resumed without the 8 samples before it, which it has seen, and the 4 after it.
  auto config = order_config();
  auto const plain = read_steps(one_, config, 1, 1, 0, 4);
  config.data.skip = {"8-19"};
  auto const resumed = read_steps(one_, config, 2, 1, 16, 1);
  EXPECT_EQ(resumed, Read(plain.begin() + 20, plain.begin() + 28));
}

TEST_F(OrderTest, RandomNumbersAreOfThePositionAlone) {
  // The same folder under two names and orders: times, noise and lights stay with the position, not with the sample.
  Pairs const other(shard_of(10, 9));
  std::vector<std::vector<DataFolder>> const mixtures = {{{a_.path(), 1}, {other.path(), 1}},
                                                         {{other.path(), 1}, {a_.path(), 5}}};
  auto config = order_config();
  std::vector<at::Tensor> drawn;
  std::vector<std::vector<std::uint64_t>> positions;
  for (auto const& mixture : mixtures)
    for (auto const& settings : {config, with_blocks(config)}) {
      TrainingData data(mixture, settings, 1, 2, 32, false);  // positions 36 to 39
      auto const batch = data.next();
      auto const joint = joint_batch(batch, data.source(), settings, model::LightEncoding::lvsm, at::kCPU);
      drawn.push_back(at::cat({joint.t, joint.noise.flatten(), joint.light_kept}));
      positions.push_back(joint.positions);
      data.release(batch);
    }
  EXPECT_EQ(positions.front(), (std::vector<std::uint64_t>{36, 37}));
  for (std::size_t i = 1; i < drawn.size(); ++i) {
    EXPECT_EQ(positions[i], positions.front());
    EXPECT_TRUE(at::equal(drawn[i], drawn.front()));
  }
}

TEST_F(OrderTest, AMixtureHasTheShareThatTheWeightsSay) {
  auto const shares = [&](std::vector<DataFolder> const& folders) {
    TrainingData data(folders, order_config(), 0, 1, 0, false);
    std::vector<int> counts(2);
    for (int micro = 0; micro < 3 * 45; ++micro) {  // 360 samples
      auto const batch = data.next();
      auto const of = field_tensor(batch, data.source(), "folder");
      for (std::int64_t i = 0; i < batch.samples; ++i) ++counts[static_cast<std::size_t>(of[i].item<std::int64_t>())];
      data.release(batch);
    }
    return counts;
  };
  EXPECT_EQ(shares(two_), (std::vector<int>{216, 144}));
  EXPECT_EQ(shares({{a_.path()}, {b_.path()}}), (std::vector<int>{240, 120}));  // 12 and 6 samples
}

TEST_F(OrderTest, TheFingerprintIsOfAllFoldersAndWeights) {
  auto const of = [](std::vector<DataFolder> const& folders) {
    return TrainingData(folders, order_config(), 0, 1, 0, false).fingerprint();
  };
  EXPECT_EQ(of(one_), data::ShardIndex(a_.path()).fingerprint());
  EXPECT_EQ(of({{a_.path(), 7}}), of(one_)) << "a folder alone has all of the samples";
  std::set<std::string> const all = {of(one_), of({{a_.path()}, {b_.path()}}), of({{b_.path()}, {a_.path()}}),
                                     of({{a_.path(), 1}, {b_.path(), 1}}), of({{a_.path(), 2}, {b_.path(), 1}})};
  EXPECT_EQ(all.size(), 5u);
  EXPECT_EQ(of({{a_.path(), 2}, {b_.path(), 4}}), of({{a_.path(), 1}, {b_.path(), 2}}));
}

TEST_F(OrderTest, LatentsOfAMixtureHaveTheStatisticsOfWhatIsDrawn) {
  auto shard = shard_of(4, 5);
  shard.mean = {5, 2};  // the others' are 1 and 2, all deviations 1
  Pairs const far(shard);
  TrainingData const data({{a_.path(), 3}, {far.path(), 1}}, order_config(), 0, 1, 0, false);
  auto const& statistics = data.latent_statistics();
  EXPECT_EQ(statistics.mean, (std::vector<float>{2, 2}));
  EXPECT_FLOAT_EQ(statistics.deviation[0], 2);  // 1 + (3/4 * 1 + 1/4 * 9)
  EXPECT_FLOAT_EQ(statistics.deviation[1], 1);
  shard.mean = shard.deviation = {};
  Pairs const without(shard);
  EXPECT_TRUE(says(data_error_of([&] {
                     TrainingData({{a_.path()}, {without.path()}}, order_config(), 0, 1, 0, false);
                   }),
                   {a_.path(), without.path(), "statistics"}));
}

TEST_F(OrderTest, FoldersThatAreNotAlikeAreErrorsNamingBoth) {
  auto shard = shard_of(4, 5);
  shard.targets = 2;
  Pairs const fewer(shard);
  auto config = order_config();
  config.training.num_target_views = 8;  // all that there are
  auto const error = [&](Pairs const& other) {
    return data_error_of([&] { TrainingData({{a_.path()}, {other.path()}}, config, 0, 1, 0, false); });
  };
  EXPECT_TRUE(says(error(fewer), {"target_images", "u8 [3,4,4,3] in " + a_.path(), "u8 [2,4,4,3] in " + fewer.path()}));
  shard = shard_of(4, 5);
  shard.latent_dtype = data::DType::f32;
  EXPECT_TRUE(says(error(Pairs(shard)), {"x0", "bf16 [3,2]", "f32 [3,2]"}));
}

TEST_F(OrderTest, RanksMayHaveTheirSamplesInAnyOfTheFolders) {
  auto config = order_config();
  config.training.global_batch_size = 32;
  EXPECT_EQ(TrainingData({{a_.path()}, {b_.path()}}, config, 17, 18, 0, false).samples(), 18u);
  EXPECT_TRUE(says(data_error_of([&] {
                     TrainingData({{a_.path()}, {b_.path()}}, config, 0, 19, 0, false);
                   }),
                   {a_.path() + " + " + b_.path(), "18 samples for 19 ranks"}));
}

TEST_F(OrderTest, BlocksAndWindowsAreSharesOfTheFolder) {
  auto const folder = open_training_folder(a_.path(), order_config());
  double const mib = static_cast<double>(folder.index->shards().front().bytes) / (1 << 20);
  DataConfig config;
  EXPECT_EQ(block_shuffle(folder, config, 1).block, 0u);
  config.shuffle = "block";
  config.shuffle_block_mib = mib / 3.9;  // 12 samples
  config.shuffle_window_mib = mib;
  EXPECT_EQ(block_shuffle(folder, config, 1).block, 3u);
  EXPECT_EQ(block_shuffle(folder, config, 1).window, 3u);
  EXPECT_EQ(block_shuffle(folder, config, 0.6).window, 2u);
  EXPECT_EQ(block_shuffle(folder, config, 0.01).window, 1u);
  config.shuffle_block_mib = config.shuffle_window_mib = 1e6;
  EXPECT_EQ(block_shuffle(folder, config, 1).block, 12u);
}

}  // namespace
}  // namespace duoflow::launch
