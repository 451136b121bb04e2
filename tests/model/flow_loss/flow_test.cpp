#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/flow/path.h"
#include "model/flow/random.h"
#include "model/flow/solver.h"
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

TEST(SolverTest, EulerIsExactForAConstantField) {
  Ends const e;
  at::Tensor const v = e.x1 - e.x0;
  for (int const steps : {1, 2, 7}) {
    EXPECT_LT(test::relative_error(solve(
                                       "euler", [&](at::Tensor const&, double) { return v; }, e.x0, steps),
                                   e.x1),
              1e-6);
  }
}

TEST(SolverTest, EulerCompoundsAnExponential) {
  at::Tensor const start = at::full({2}, 3.0, at::kDouble);
  for (int const steps : {1, 4, 10}) {
    at::Tensor const end = solve(
        "euler", [](at::Tensor const& x, double) { return 0.5 * x; }, start, steps);
    EXPECT_NEAR(end[1].item<double>(), 3 * std::pow(1 + 0.5 / steps, steps), 1e-12);
  }
  EXPECT_EQ(start[0].item<double>(), 3);
}

TEST(SolverTest, EulerEvaluatesAtTheLeftEndOfEveryStep) {
  std::vector<double> seen;
  solve(
      "euler",
      [&](at::Tensor const& x, double t) {
        seen.push_back(t);
        return x;
      },
      at::ones({1}), 4);
  EXPECT_EQ(seen, (std::vector<double>{0, 0.25, 0.5, 0.75}));
}

TEST(SolverTest, AnUnknownNameOrNoStepIsAnErrorThatSaysWhatIsValid) {
  VelocityField const field = [](at::Tensor const& x, double) { return x; };
  try {
    solve("rk5", field, at::ones({1}), 1);
    FAIL() << "accepted";
  } catch (std::invalid_argument const& error) {
    EXPECT_NE(std::string(error.what()).find("'rk5', use one of: euler"), std::string::npos) << error.what();
  }
  EXPECT_THROW(solve("euler", field, at::ones({1}), 0), std::invalid_argument);
}

}  // namespace
}  // namespace duoflow::model
