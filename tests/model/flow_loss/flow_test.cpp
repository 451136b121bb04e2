#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/flow/path.h"
#include "model/flow/random.h"
#include "tests/model/small_model.h"

namespace duoflow::model {
namespace {

struct Ends {
  at::Tensor x0 = normal_tensor({5, 4, 3}, 1, 0, Stream::noise), x1 = normal_tensor({5, 4, 3}, 1, 1, Stream::noise);
  at::Tensor t = at::tensor({0.0f, 0.1f, 0.5f, 0.97f, 1.0f});
};

TEST(LinearPathTest, StartsAndEndsExactlyAtItsEnds) {
  Ends const e;
  PathPoint const point = linear_path(e.x0, e.x1, e.t);
  EXPECT_TRUE(at::equal(point.x_t[0], e.x0[0]));
  EXPECT_TRUE(at::equal(point.x_t[4], e.x1[4]));
}

TEST(LinearPathTest, TargetIsTheDerivativeOfThePath) {
  Ends const e;
  at::Tensor const t = e.t.to(at::kDouble).requires_grad_(true);
  PathPoint const point = linear_path(e.x0.to(at::kDouble), e.x1.to(at::kDouble), t);
  for (std::int64_t i = 0; i < 4; ++i) {
    for (std::int64_t j = 0; j < 3; ++j) {
      auto const d = torch::autograd::grad({point.x_t.select(1, i).select(1, j).sum()}, {t}, {}, true)[0];
      EXPECT_LT(test::relative_error(d, point.target.select(1, i).select(1, j)), 1e-15);
    }
  }
}

TEST(LinearPathTest, AnOracleVelocityLandsOnTheOtherEndFromEveryTime) {
  Ends const e;
  PathPoint const point = linear_path(e.x0, e.x1, e.t);
  at::Tensor const x_hat = point.x_t + (1 - e.t).view({-1, 1, 1}) * point.target;
  EXPECT_LT((x_hat - e.x1).abs().max().item<double>(), 1e-6);
}

TEST(LinearPathTest, AnEmptyBatchStaysEmpty) {
  EXPECT_EQ(linear_path(at::empty({0, 4, 3}), at::empty({0, 4, 3}), at::empty({0})).x_t.numel(), 0);
}

struct Bridge {
  Path path;
  double sigma, (*width)(double t);
};
std::vector<Bridge> bridges() {
  return {{Path::bridge_sqrt, 0.3, [](double t) { return 0.3 * std::sqrt(t * (1 - t)); }},
          {Path::bridge_quadratic, 0.7, [](double t) { return 0.7 * t * (1 - t); }}};
}

TEST(BridgeTest, NoiseHasTheStatedWidthAndEndsAreFree) {
  Ends const e;
  at::Tensor const noise = normal_tensor({5, 4, 3}, 1, 2, Stream::noise);
  for (auto const& [path, sigma, width] : bridges()) {
    at::Tensor const extra = path_point(path, sigma, e.x0, e.x1, e.t, noise).x_t - linear_path(e.x0, e.x1, e.t).x_t;
    for (std::int64_t i = 0; i < 5; ++i)
      EXPECT_LT((extra[i] - width(e.t[i].item<double>()) * noise[i]).abs().max().item<double>(), 1e-6) << i;
  }
}

TEST(BridgeTest, AnOracleVelocityLandsOnTheOtherEndWithNoiseToo) {
  Ends e;
  e.t = at::tensor({0.0f, 0.1f, 0.5f, 0.97f, 0.9999f});
  at::Tensor const noise = normal_tensor({5, 4, 3}, 1, 2, Stream::noise);
  for (auto const& [path, sigma, width] : bridges()) {
    PathPoint const point = path_point(path, sigma, e.x0, e.x1, e.t, noise);
    at::Tensor const x_hat = point.x_t + (1 - e.t).view({-1, 1, 1}) * point.target;
    EXPECT_LT((x_hat - e.x1).abs().max().item<double>(), 2e-6);
  }
}

TEST(BridgeTest, TheFamilysOwnTargetMissesTheOtherEndByTheNoise) {
  Ends const e;
  at::Tensor const noise = normal_tensor({5, 4, 3}, 1, 2, Stream::noise);
  PathPoint const point = path_point(Path::noisy_linear, 0.7, e.x0, e.x1, e.t, noise);
  EXPECT_TRUE(at::equal(point.x_t, path_point(Path::bridge_quadratic, 0.7, e.x0, e.x1, e.t, noise).x_t));
  EXPECT_TRUE(at::equal(point.target, e.x1 - e.x0));
  at::Tensor const missed = point.x_t + (1 - e.t).view({-1, 1, 1}) * point.target - e.x1;
  EXPECT_LT((missed[2] - 0.7 * 0.25 * noise[2]).abs().max().item<double>(), 1e-6);
}

TEST(BridgeTest, WithoutWidthItIsTheLinearPathAndNeedsNoNoise) {
  Ends const e;
  EXPECT_TRUE(at::equal(path_point(Path::bridge_sqrt, 0, e.x0, e.x1, e.t, {}).x_t, linear_path(e.x0, e.x1, e.t).x_t));
  EXPECT_THROW(path_point(Path::bridge_sqrt, 0.1, e.x0, e.x1, e.t, {}), std::invalid_argument);
}

TEST(BridgeTest, TheTargetIsFiniteAtTheFarEnd) {
  Ends const e;
  for (auto const& [path, sigma, width] : bridges())
    EXPECT_TRUE(at::isfinite(path_point(path, sigma, e.x0, e.x1, e.t, at::ones_like(e.x0)).target).all().item<bool>());
}

TEST(PathNamesTest, NameThePathsAndAnUnknownOneIsRefused) {
  EXPECT_EQ(path_of_name("linear"), Path::linear);
  EXPECT_EQ(path_of_name("bridge_sqrt"), Path::bridge_sqrt);
  EXPECT_EQ(path_of_name("bridge_quadratic"), Path::bridge_quadratic);
  EXPECT_THROW(path_of_name("bridge"), std::invalid_argument);
}

}  // namespace
}  // namespace duoflow::model
