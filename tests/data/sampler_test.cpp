#include "data/order/sampler.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

std::vector<std::uint64_t> epoch_order(Sampler const& sampler, std::uint64_t epoch) {
  std::vector<std::uint64_t> order;
  for (std::uint64_t i = 0; i < sampler.size(); ++i) order.push_back(sampler.index_at(epoch * sampler.size() + i));
  return order;
}

TEST(SamplerTest, EveryEpochIsAPermutation) {
  for (std::uint64_t const size : {1, 2, 3, 4, 5, 7, 16, 17, 64, 65, 1000}) {
    std::vector<std::uint64_t> all(size);
    std::iota(all.begin(), all.end(), std::uint64_t{0});
    for (std::uint64_t epoch = 0; epoch < 5; ++epoch) {
      auto order = epoch_order(Sampler(11, size), epoch);
      std::sort(order.begin(), order.end());
      EXPECT_EQ(order, all) << size << " epoch " << epoch;
    }
  }
}

TEST(SamplerTest, EpochsAndSeedsDiffer) {
  std::set<std::vector<std::uint64_t>> orders;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    for (std::uint64_t epoch = 0; epoch < 4; ++epoch) orders.insert(epoch_order(Sampler(seed, 64), epoch));
  EXPECT_EQ(orders.size(), 16U);
}

TEST(SamplerTest, AllOrdersOfThreeOccurAboutEquallyOften) {
  std::map<std::vector<std::uint64_t>, int> counts;
  for (std::uint64_t epoch = 0; epoch < 6000; ++epoch) ++counts[epoch_order(Sampler(5, 3), epoch)];
  EXPECT_EQ(counts.size(), 6U);
  for (auto const& [order, count] : counts) EXPECT_NEAR(count, 1000, 150);  // 5 standard deviations
}

TEST(SamplerTest, LargeSetsStayInRange) {
  Sampler const sampler(3, (std::uint64_t{1} << 40) + 1);
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    EXPECT_LT(sampler.index_at(i), sampler.size());
    seen.insert(sampler.index_at(i));
  }
  EXPECT_EQ(seen.size(), 1000U);
}

TEST(SamplerTest, AnEmptySetIsAnError) { EXPECT_THROW(Sampler(1, 0), DataError); }

TEST(SamplerTest, TheOrderIsFixedForever) {
  // A run's checkpoint holds only {seed, position}: another order would silently change what a resumed run reads.
  EXPECT_EQ(epoch_order(Sampler(1, 10), 0), (std::vector<std::uint64_t>{3, 5, 1, 8, 2, 4, 0, 7, 9, 6}));
  EXPECT_EQ(random_bits(1, 2, 3, 4), 0xe1ec30108e8a7ed6ULL);
}

TEST(RankBlockTest, BlocksPartitionTheBatchWithLargerOnesFirst) {
  for (std::int64_t const batch : {0, 1, 2, 7, 8, 64, 65})
    for (int size = 1; size <= 8; ++size) {
      std::int64_t next = 0, previous = batch;
      for (int rank = 0; rank < size; ++rank) {
        auto const [first, count] = rank_block(batch, rank, size);
        EXPECT_EQ(first, next);
        EXPECT_LE(count, previous);
        EXPECT_GE(count, batch / size);
        EXPECT_LE(count, batch / size + 1);
        next = first + count;
        previous = count;
      }
      EXPECT_EQ(next, batch);
    }
}

TEST(RankBlockTest, ARankOutsideIsAnError) {
  EXPECT_THROW(rank_block(8, 2, 2), DataError);
  EXPECT_THROW(rank_block(8, -1, 2), DataError);
  EXPECT_THROW(rank_block(8, 0, 0), DataError);
}

TEST(RandomBitsTest, EveryArgumentMatters) {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    for (std::uint64_t position = 0; position < 4; ++position)
      for (std::uint64_t stream = 0; stream < 4; ++stream)
        for (std::uint64_t counter = 0; counter < 4; ++counter) seen.insert(random_bits(seed, position, stream, counter));
  EXPECT_EQ(seen.size(), 256U);
}

}  // namespace
}  // namespace duoflow::data::testing
