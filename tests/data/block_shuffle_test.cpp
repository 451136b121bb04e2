#include "data/order/block_shuffle.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "data/order/sampler.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

using Order = std::vector<std::uint64_t>;

Order order_of(BlockShuffle const& shuffle, std::uint64_t seed, std::uint64_t epoch, std::uint64_t size) {
  Order order;
  for (std::uint64_t place = 0; place < size; ++place)
    order.push_back(block_shuffled(shuffle, seed, epoch, size, place));
  return order;
}

TEST(KeyedPermutationTest, TheInverseUndoesIt) {
  for (std::uint64_t const size : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{5}, std::uint64_t{64},
                                   std::uint64_t{65}, (std::uint64_t{1} << 40) + 1})
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
      KeyedPermutation const permutation(9, epoch, 4, size);
      for (std::uint64_t i = 0; i < std::min<std::uint64_t>(size, 200); ++i) {
        ASSERT_LT(permutation(i), size);
        ASSERT_EQ(permutation.inverse(permutation(i)), i) << size;
      }
    }
}

TEST(BlockShuffleTest, EveryEpochIsAPermutation) {
  for (std::uint64_t const size : {1, 2, 7, 16, 17, 63, 64, 65, 500})
    for (std::uint64_t const block : {1, 3, 16, 64, 1000})
      for (std::uint64_t const window : {1, 2, 5, 1000}) {
        Order all(size);
        std::iota(all.begin(), all.end(), std::uint64_t{0});
        for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
          auto order = order_of({block, window}, 11, epoch, size);
          std::sort(order.begin(), order.end());
          ASSERT_EQ(order, all) << size << " samples in blocks of " << block << ", " << window << " at a time";
        }
      }
}

TEST(BlockShuffleTest, EpochsAndSeedsDiffer) {
  std::set<Order> orders;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    for (std::uint64_t epoch = 0; epoch < 4; ++epoch) orders.insert(order_of({8, 2}, seed, epoch, 64));
  EXPECT_EQ(orders.size(), 16U);
}

// Most blocks, over all runs of `length` places of an epoch, that one run comes from; blocks lie `border` further on.
std::size_t most_blocks(Order const& order, std::size_t length, std::uint64_t block, std::uint64_t border) {
  auto const block_of = [&](std::uint64_t sample) { return (sample + border) % order.size() / block; };
  std::map<std::uint64_t, std::size_t> inside;
  std::size_t most = 0;
  for (std::size_t place = 0; place < order.size(); ++place) {
    ++inside[block_of(order[place])];
    if (place >= length) {
      auto const left = inside.find(block_of(order[place - length]));
      if (--left->second == 0) inside.erase(left);
    }
    most = std::max(most, inside.size());
  }
  return most;
}

TEST(BlockShuffleTest, NeighboursComeFromTwoWindowsOfBlocks) {
  for (std::uint64_t const size : {240, 251})
    for (std::uint64_t const block : {4, 10})
      for (std::uint64_t const window : {1, 3, 5})
        for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
          auto const order = order_of({block, window}, 5, epoch, size);
          auto const length = std::max<std::uint64_t>((window - 1) * block, 1);
          auto fewest = order.size();
          for (std::uint64_t border = 0; border < size; ++border)  // where they lie in this epoch is not told
            fewest = std::min(fewest, most_blocks(order, length, block, border));
          EXPECT_LE(fewest, 2 * window) << size << " in blocks of " << block << ", epoch " << epoch;
        }
  // What the bound is worth: without blocks the same run comes from nearly as many as there are.
  Sampler const full(5, 240);
  Order order;
  for (std::uint64_t p = 0; p < 240; ++p) order.push_back(full.index_at(p));
  EXPECT_GT(most_blocks(order, 40, 10, 0), 20U);
}

TEST(BlockShuffleTest, EverySampleIsAtEveryPlaceEquallyOften) {
  std::uint64_t const size = 12, epochs = 6000;
  std::vector<int> counts(size * size);
  for (std::uint64_t epoch = 0; epoch < epochs; ++epoch) {
    auto const order = order_of({2, 2}, 3, epoch, size);
    for (std::uint64_t place = 0; place < size; ++place) ++counts[place * size + order[place]];
  }
  for (auto const count : counts) EXPECT_NEAR(count, 500, 110);  // 5 standard deviations
}

TEST(BlockShuffleTest, WhatFollowsInTheFolderSeldomFollowsInTheOrder) {
  // Any of 256 samples of a window follows a sample: 4096 / 256 successors are expected, standard deviation 4.
  auto const order = order_of({16, 16}, 1, 0, 4096);
  int followed = 0;
  for (std::size_t i = 1; i < order.size(); ++i) followed += order[i] == order[i - 1] + 1 ? 1 : 0;
  EXPECT_LT(followed, 40);
}

TEST(BlockShuffleTest, SamplesBesideOneAnotherComeIntoOtherCompanyEachEpoch) {
  // Of the pairs of samples that share a window of 32 among 1024 in one epoch, few share it in the next.
  auto const windows = [](std::uint64_t epoch) {
    auto const order = order_of({4, 8}, 2, epoch, 1024);
    std::vector<std::uint64_t> of(1024);
    for (std::uint64_t place = 0; place < 1024; ++place) of[order[place]] = place / 32;
    return of;
  };
  auto const now = windows(0), next = windows(1);
  int both = 0, once = 0;
  for (std::size_t a = 0; a < 1024; ++a)
    for (std::size_t b = a + 1; b < 1024; ++b)
      if (now[a] == now[b]) {
        ++once;
        both += next[a] == next[b] ? 1 : 0;
      }
  EXPECT_EQ(once, 32 * 31 * 32 / 2);
  EXPECT_LT(both, once / 5);  // those of one block stay together, and one in 32 of the others
}

TEST(BlockShuffleTest, TheOrderIsFixedForever) {
  // As SamplerTest.TheOrderIsFixedForever: a checkpoint holds only {seed, position}.
  EXPECT_EQ(order_of({3, 2}, 1, 0, 10), (Order{8, 7, 6, 5, 4, 2, 1, 3, 9, 0}));
}

TEST(SamplerTest, BlocksAreOfWhatIsPutSideBySide) {
  auto const neighbours = std::make_shared<Order const>(Order{4, 2, 0, 5, 3, 1});
  SamplerOptions options;
  options.blocks = {2, 1};
  options.neighbours = neighbours;
  Sampler const sampler(7, 6, options);
  std::set<std::uint64_t> seen;
  for (std::uint64_t p = 0; p < 6; ++p) {
    EXPECT_EQ(sampler.index_at(p), (*neighbours)[block_shuffled({2, 1}, 7, 0, 6, p)]);
    seen.insert(sampler.index_at(p));
  }
  EXPECT_EQ(seen.size(), 6U);
  EXPECT_EQ(sampler.index_at(6), (*neighbours)[block_shuffled({2, 1}, 7, 1, 6, 0)]) << "the second epoch";
}

TEST(SamplerTest, SenselessBlocksAreErrors) {
  SamplerOptions options;
  options.blocks = {2, 0};
  EXPECT_TRUE(says(data_error_of([&] { Sampler(1, 5, options); }), {"0 blocks"}));
  options.blocks = {2, 1};
  options.neighbours = std::make_shared<Order const>(Order{0, 1});
  EXPECT_TRUE(says(data_error_of([&] { Sampler(1, 5, options); }), {"2 samples", "has 5"}));
}

}  // namespace
}  // namespace duoflow::data::testing
