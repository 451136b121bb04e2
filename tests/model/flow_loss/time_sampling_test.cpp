// Kolmogorov-Smirnov tests of every sampling against its distribution function (reference/method.md 2.2, times counted
// from the source).

#include "model/flow/time_sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <stdexcept>

#include <gtest/gtest.h>

namespace duoflow::model {
namespace {

using std::numbers::pi;
using Cdf = std::function<double(double)>;

constexpr std::uint64_t samples = 20000;

std::vector<double> draw(TimeSampling const& sampling, std::uint64_t seed = 3) {
  check_time_sampling(sampling);
  std::vector<double> times;
  for (std::uint64_t position = 0; position < samples; ++position)
    times.push_back(sample_time(sampling, seed, position));
  std::sort(times.begin(), times.end());
  return times;
}

double largest_cdf_gap(std::vector<double> const& sorted, Cdf const& cdf) {
  double gap = 0;
  auto const n = static_cast<double>(sorted.size());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    double const f = cdf(sorted[i]), below = static_cast<double>(i) / n;
    gap = std::max({gap, f - below, below + 1 / n - f});
  }
  return gap;
}

// P(gap > 1.95 / sqrt n) is 0.001 for the right distribution; the draws are fixed, so this passes always or never.
double const limit = 1.95 / std::sqrt(static_cast<double>(samples));

struct Case {
  TimeSampling sampling;
  Cdf cdf;
};

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }
double logit(double t) { return std::log(t / (1 - t)); }

std::vector<Case> cases() {
  return {
      {{.name = "uniform"}, [](double t) { return t; }},
      {{.name = "early_bias"}, [](double t) { return std::sqrt(t); }},
      {{.name = "late_bias"}, [](double t) { return 1 - std::sqrt(1 - t); }},
      {{.name = "mixed"}, [](double t) { return 0.5 * (t + std::sqrt(t)); }},
      {{.name = "logit_normal"}, [](double t) { return normal_cdf(logit(t)); }},
      {{.name = "logit_normal", .mean = -0.5, .deviation = 1.7},
       [](double t) { return normal_cdf((logit(t) + 0.5) / 1.7); }},
      {{.name = "cosmap"}, [](double t) { return 2 / pi * std::atan2(t, 1 - t); }},
  };
}

TEST(TimeSamplingTest, EveryOneFollowsItsDistribution) {
  for (auto const& [sampling, cdf] : cases()) EXPECT_LT(largest_cdf_gap(draw(sampling), cdf), limit) << sampling.name;
}

TEST(TimeSamplingTest, TheTestTellsTheDistributionsApart) {
  for (auto const& [sampling, cdf] : cases()) {
    if (sampling.name == "uniform") continue;
    EXPECT_GT(largest_cdf_gap(draw(sampling), [](double t) { return t; }), 2 * limit) << sampling.name;
  }
}

// The distribution function of `mode` has no closed form, its inverse in 1-u does.
TEST(TimeSamplingTest, ModeFollowsItsQuantiles) {
  for (double const scale : {-1.0, -0.5, 0.0, 1.29, 2 / (pi - 2)}) {
    auto const quantile = [scale](double u) { return 1 - u - scale * (std::pow(std::cos(pi * u / 2), 2) - 1 + u); };
    Cdf const cdf = [&](double t) {
      double low = 0, high = 1;
      for (int i = 0; i < 60; ++i) {
        double const middle = 0.5 * (low + high);
        (quantile(middle) > t ? low : high) = middle;
      }
      return 1 - low;
    };
    EXPECT_LT(largest_cdf_gap(draw({.name = "mode", .mode_scale = scale}), cdf), limit) << scale;
  }
}

TEST(TimeSamplingTest, DiscreteTimesComeEvenly) {
  auto const times = draw({.name = "discrete", .times = {0, 0.25, 0.5, 1}});
  for (double const t : {0.0, 0.25, 0.5, 1.0})
    EXPECT_NEAR(static_cast<double>(std::count(times.begin(), times.end(), t)), samples / 4.,
                4 * std::sqrt(samples * 3 / 16.))
        << t;
}

TEST(TimeSamplingTest, TheShiftMapsEveryTime) {
  for (double const shift : {0.5, 3.0}) {
    Cdf const cdf = [shift](double t) { return t / (shift - (shift - 1) * t); };  // the inverse of a t / (1 + (a-1) t)
    EXPECT_LT(largest_cdf_gap(draw({.name = "uniform", .shift = shift}), cdf), limit) << shift;
  }
}

TEST(TimeSamplingTest, MixedTossesItsCoinForEverySampleByItself) {
  int runs = 1;
  auto is_early = [](std::uint64_t position) {
    return sample_time({.name = "mixed"}, 1, position) != sample_time({.name = "uniform"}, 1, position);
  };
  for (std::uint64_t p = 1; p < samples; ++p) runs += is_early(p) != is_early(p - 1) ? 1 : 0;
  EXPECT_NEAR(runs, samples / 2., 4 * std::sqrt(samples / 4.));  // of independent tosses
}

TEST(TimeSamplingTest, ATimeIsAFunctionOfSeedAndPosition) {
  for (auto const& [sampling, cdf] : cases()) {
    EXPECT_EQ(sample_time(sampling, 5, 77), sample_time(sampling, 5, 77));
    EXPECT_NE(sample_time(sampling, 5, 77), sample_time(sampling, 5, 78));
    EXPECT_NE(sample_time(sampling, 5, 77), sample_time(sampling, 6, 77));
  }
}

std::string refusal(TimeSampling const& sampling) {
  try {
    check_time_sampling(sampling);
  } catch (std::invalid_argument const& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TimeSamplingTest, WhatCannotBeDrawnFromIsRefusedWithItsRange) {
  EXPECT_NE(refusal({.name = "lognormal"}).find("'lognormal', use one of: uniform, early_bias"), std::string::npos);
  EXPECT_NE(refusal({.name = "mode", .mode_scale = 1.76}).find("1.76, it must lie in [-1, 1.7519]"), std::string::npos);
  EXPECT_NE(refusal({.name = "logit_normal", .deviation = 0}).find("deviation 0"), std::string::npos);
  EXPECT_NE(refusal({.name = "discrete"}).find("at least one"), std::string::npos);
  EXPECT_NE(refusal({.name = "discrete", .times = {0.5, 1.5}}).find("1.5"), std::string::npos);
  EXPECT_NE(refusal({.name = "uniform", .shift = 0}).find("shift of time is 0"), std::string::npos);
  EXPECT_EQ(refusal({.name = "mode", .mode_scale = -1}), "accepted");
}

}  // namespace
}  // namespace duoflow::model
