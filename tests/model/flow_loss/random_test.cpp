#include "model/flow/random.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/model/small_model.h"

namespace duoflow::model {
namespace {

constexpr std::uint64_t kSeed = 2024;

// Kolmogorov's statistic against a distribution function.
template <typename Distribution>
double largest_gap(std::vector<double> samples, Distribution const& distribution) {
  std::sort(samples.begin(), samples.end());
  double gap = 0;
  double const n = static_cast<double>(samples.size());
  for (std::size_t i = 0; i < samples.size(); ++i) {
    double const expected = distribution(samples[i]), rank = static_cast<double>(i);
    gap = std::max({gap, expected - rank / n, (rank + 1) / n - expected});
  }
  return gap;
}
double ks_limit(std::size_t n) { return 1.63 / std::sqrt(static_cast<double>(n)); }  // 1 % level

std::vector<double> times(std::size_t count) {
  std::vector<double> result;
  for (std::size_t position = 0; position < count; ++position)
    result.push_back(uniform01(kSeed, position, Stream::time, 0));
  return result;
}

TEST(RandomTest, PhiloxGivesThePublishedKnownAnswers) {  // Random123, tests/kat_vectors, philox4x32 10
  using Block = std::array<std::uint32_t, 4>;
  constexpr std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32_10({ones, ones, ones, ones}, {ones, ones}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(RandomTest, DrawsAgreeWithThePythonTwin) {
  auto const golden = test::golden("flow_loss", "random.");
  auto const draws = golden.at("draws");
  for (std::int64_t i = 0; i < draws.size(0); ++i) {
    auto const word = [&](std::int64_t j) { return static_cast<std::uint64_t>(draws[i][j].item<std::int64_t>()); };
    auto const stream = static_cast<Stream>(word(2));
    EXPECT_EQ(uniform01(word(0), word(1), stream, word(3)), golden.at("uniform")[i].item<double>()) << i;
    EXPECT_NEAR(standard_normal(word(0), word(1), stream, word(3)), golden.at("normal")[i].item<double>(), 1e-14) << i;
  }
  EXPECT_LT(test::relative_error(normal_tensor({3, 5}, 11, 3, Stream::noise), golden.at("tensor")), 1e-7);
}

TEST(RandomTest, TimesAreUniformInsideTheOpenInterval) {
  auto const t = times(100'000);
  auto const [low, high] = std::minmax_element(t.begin(), t.end());
  EXPECT_GT(*low, 0);
  EXPECT_LT(*high, 1);
  double sum = 0, squares = 0;
  for (double const x : t) sum += x, squares += (x - 0.5) * (x - 0.5);
  EXPECT_NEAR(sum / 1e5, 0.5, 4 * std::sqrt(1.0 / 12 / 1e5));
  EXPECT_NEAR(squares / 1e5, 1.0 / 12, 4 * std::sqrt(1.0 / 180 / 1e5));
  EXPECT_LT(largest_gap(t, [](double x) { return x; }), ks_limit(t.size()));
}

TEST(RandomTest, NormalsFollowTheNormalDistribution) {
  at::Tensor const x = normal_tensor({100'000}, kSeed, 9, Stream::noise);
  std::vector<double> const values(x.data_ptr<float>(), x.data_ptr<float>() + x.numel());
  EXPECT_LT(largest_gap(values, [](double v) { return 0.5 * std::erfc(-v / std::sqrt(2.0)); }),
            ks_limit(values.size()));
  EXPECT_NEAR(x.var().item<double>(), 1, 4 * std::sqrt(2.0 / 1e5));
}

TEST(RandomTest, ADrawDependsOnItsAddressAndNotOnWhatWasDrawnBefore) {
  auto const whole = times(64);
  for (std::size_t ranks : {1, 2, 4, 5}) {  // each "rank" draws its own block, the last one first
    for (std::size_t rank = ranks; rank-- > 0;) {
      for (std::size_t p = rank * 64 / ranks; p < (rank + 1) * 64 / ranks; ++p) {
        EXPECT_EQ(uniform01(kSeed, p, Stream::time, 0), whole[p]);
      }
    }
  }
}

TEST(RandomTest, SeedPositionStreamAndCounterEachMatter) {
  std::vector<double> draws{uniform01(1, 2, Stream::time, 3),
                            uniform01(1, 2, Stream::noise, 3),
                            uniform01(1, 2, Stream::initialisation, 3),
                            uniform01(1, 2, Stream::time, 4),
                            uniform01(1, 3, Stream::time, 3),
                            uniform01(2, 2, Stream::time, 3),
                            uniform01(1, 2, Stream::time, (1ull << 32) + 3),
                            uniform01(1, (1ull << 32) + 2, Stream::time, 3),
                            uniform01((1ull << 32) + 1, 2, Stream::time, 3)};
  std::sort(draws.begin(), draws.end());
  EXPECT_EQ(std::adjacent_find(draws.begin(), draws.end()), draws.end());
}

TEST(RandomTest, TensorElementsAreTheSingleDrawsAtEverySize) {
  for (std::int64_t const size : {0, 1, 2, 7, 20'001}) {  // the last one spans several parallel chunks
    at::Tensor const x = normal_tensor({size}, kSeed, 4, Stream::initialisation);
    ASSERT_EQ(x.numel(), size);
    for (std::int64_t i = 0; i < size; i = i < 8 ? i + 1 : i + 997) {
      EXPECT_EQ(x[i].item<float>(),
                static_cast<float>(standard_normal(kSeed, 4, Stream::initialisation, static_cast<std::uint64_t>(i))));
    }
  }
}

}  // namespace
}  // namespace duoflow::model
