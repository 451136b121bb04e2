#include "data/order/mixture.h"

#include <bit>
#include <cmath>
#include <memory>
#include <set>
#include <stdexcept>

#include "data/shards/latent_statistics.h"
#include "data/order/sampler.h"
#include "sample_folders.h"

namespace duoflow::data::testing {
namespace {

std::vector<std::vector<std::uint64_t>> const kWeights = {
    {1}, {1, 1}, {3, 1}, {1, 3}, {7, 2, 1}, {1, 1, 1, 1}, {5, 5, 5, 5, 1}, {100, 1}, {97, 89, 83, 2, 1, 1, 50}};

std::uint64_t sum(std::vector<std::uint64_t> const& weights) {
  std::uint64_t all = 0;
  for (auto const weight : weights) all += weight;
  return all;
}

TEST(MixtureTest, EveryPeriodHoldsExactlyTheWeights) {
  for (auto const& weights : kWeights) {
    Mixture const mixture(weights);
    for (std::uint64_t period = 0; period < 3; ++period) {
      std::vector<std::uint64_t> counts(weights.size());
      for (std::uint64_t p = 0; p < sum(weights); ++p) ++counts[mixture.at(period * sum(weights) + p).folder];
      EXPECT_EQ(counts, weights);
    }
  }
}

TEST(MixtureTest, NoPrefixIsFurtherFromTheProportionsThanHalfASamplePerHalving) {
  for (auto const& weights : kWeights) {
    Mixture const mixture(weights);
    double const bound = 0.5 * static_cast<double>(std::bit_width(weights.size() - 1));
    std::vector<double> counts(weights.size());
    for (std::uint64_t p = 0; p < 3 * sum(weights) + 5; ++p) {
      for (std::size_t i = 0; i < weights.size(); ++i)
        ASSERT_LE(std::abs(counts[i] - static_cast<double>(p) * mixture.share(i)), bound + 1e-9)
            << "of the first " << p;
      ++counts[mixture.at(p).folder];
    }
  }
}

TEST(MixtureTest, OwnPositionsCountTheFoldersSamples) {
  for (auto const& weights : kWeights) {
    Mixture const mixture(weights);
    std::vector<std::uint64_t> next(weights.size());
    for (std::uint64_t p = 0; p < 2 * sum(weights) + 3; ++p) {
      auto const draw = mixture.at(p);
      ASSERT_EQ(draw.own_position, next[draw.folder]++);
    }
  }
}

TEST(MixtureTest, FarPositionsNeedNoPast) {
  for (auto const& weights : kWeights) {
    Mixture const mixture(weights);
    std::uint64_t const periods = (std::uint64_t{1} << 50) / sum(weights);
    for (std::uint64_t p = 0; p < sum(weights); ++p) {
      auto const near = mixture.at(p), far = mixture.at(periods * sum(weights) + p);
      ASSERT_EQ(far.folder, near.folder);
      ASSERT_EQ(far.own_position, near.own_position + periods * weights[near.folder]);
    }
  }
}

TEST(MixtureTest, CommonDivisorsAndHugeWeightsChangeNothing) {
  EXPECT_EQ(Mixture({500'000'000, 1'500'000'000}).weights(), (std::vector<std::uint64_t>{1, 3}));
  std::uint64_t const huge = (std::uint64_t{1} << 61) - 1;  // a prime
  Mixture const mixture({huge, 2});
  EXPECT_EQ(mixture.weights(), (std::vector<std::uint64_t>{huge, 2}));
  // Two of huge + 2 positions are the second's: round((p + 1) 2 / (huge + 2)) rises where p is a quarter of the way.
  EXPECT_EQ(mixture.at(0).folder, 0U);
  EXPECT_EQ(mixture.at(huge / 2).own_position + mixture.at(huge / 2 + 1).own_position, 2 * (huge / 2) - 1);
}

TEST(MixtureTest, SenselessWeightsAreErrors) {
  EXPECT_TRUE(says(data_error_of([] { Mixture({}); }), {"no folders"}));
  EXPECT_TRUE(says(data_error_of([] { Mixture({1, 0, 2}); }), {"folder 1", "weight 0"}));
  std::uint64_t const most = std::uint64_t{1} << 62;
  EXPECT_TRUE(says(data_error_of([&] { Mixture({most - 1, 2}); }), {"2^62"}));
}

TEST(SamplerTest, FoldersOfAMixtureHaveTheirOwnEpochs) {
  std::vector<std::uint64_t> const sizes = {3, 7, 5};
  auto const mixture = std::make_shared<Mixture const>(std::vector<std::uint64_t>{4, 1, 2});
  std::vector<std::vector<std::uint64_t>> drawn(3);
  for (std::uint64_t p = 0; p < 300; ++p) {
    auto const folder = mixture->at(p).folder;
    SamplerOptions options;
    options.mixture = mixture;
    options.folder = folder;
    drawn[folder].push_back(Sampler(21, sizes[folder], options).index_at(p));
  }
  for (std::size_t folder = 0; folder < 3; ++folder)
    for (std::size_t first = 0; first + sizes[folder] <= drawn[folder].size(); first += sizes[folder]) {
      auto const begin = drawn[folder].begin() + static_cast<std::ptrdiff_t>(first);
      EXPECT_EQ(std::set<std::uint64_t>(begin, begin + static_cast<std::ptrdiff_t>(sizes[folder])).size(),
                sizes[folder]);
    }
  // By its samples each folder would need as long for an epoch: all of them are read once.
  Mixture const by_samples(sizes);
  std::set<std::pair<std::size_t, std::uint64_t>> seen;
  for (std::uint64_t p = 0; p < 15; ++p) seen.insert({by_samples.at(p).folder, by_samples.at(p).own_position});
  EXPECT_EQ(seen.size(), 15U);
}

TEST(SamplerTest, TheFirstFolderKeepsTheOrderItHasAlone) {
  auto const mixture = std::make_shared<Mixture const>(std::vector<std::uint64_t>{1, 1});
  SamplerOptions first, second;
  first.mixture = second.mixture = mixture;
  second.folder = 1;
  Sampler const alone(3, 40), in_mixture(3, 40, first), other(3, 40, second);
  std::vector<std::uint64_t> of_alone, of_first, of_second;
  for (std::uint64_t p = 0; p < 80; ++p) {
    auto const draw = mixture->at(p);
    (draw.folder == 0 ? of_first : of_second).push_back((draw.folder == 0 ? in_mixture : other).index_at(p));
    if (draw.folder == 0) of_alone.push_back(alone.index_at(draw.own_position));
  }
  EXPECT_EQ(of_first, of_alone);
  EXPECT_NE(of_second, of_first);  // the orders are independent
  EXPECT_THROW(other.index_at(mixture->at(0).folder == 0 ? 0 : 1), std::logic_error);
}

TEST(LatentStatisticsTest, PartsAreOneDistribution) {
  // Channel 0: half at 1 +- 1, half at 5 +- 1. Channel 1: alike in both.
  auto const all = pooled({{2, {{1, 3}, {1, 2}}}, {2, {{5, 3}, {1, 2}}}});
  EXPECT_FLOAT_EQ(all.mean[0], 3);
  EXPECT_FLOAT_EQ(all.deviation[0], std::sqrt(1.0F + 4.0F));
  EXPECT_FLOAT_EQ(all.mean[1], 3);
  EXPECT_FLOAT_EQ(all.deviation[1], 2);
  // Weighted 3 to 1 around 2: variance 0.75 * 1 + 0.25 * 9.
  auto const uneven = pooled({{0.75, {{1}, {0}}}, {0.25, {{5}, {0}}}});
  EXPECT_FLOAT_EQ(uneven.mean[0], 2);
  EXPECT_FLOAT_EQ(uneven.deviation[0], std::sqrt(3.0F));
  EXPECT_TRUE(pooled({}).mean.empty());
}

}  // namespace
}  // namespace duoflow::data::testing
