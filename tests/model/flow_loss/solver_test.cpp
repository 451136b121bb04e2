#include "model/flow/solver.h"

#include <cmath>
#include <stdexcept>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "model/flow/random.h"
#include "tests/model/small_model.h"

namespace duoflow::model {
namespace {

at::Tensor doubles(double value, std::int64_t samples = 2) { return at::full({samples, 1}, value, at::kDouble); }

// x' = (cos(3t) - 1/2) x, which depends on t and x: x(1) = x0 exp(sin(3)/3 - 1/2).
at::Tensor swing(at::Tensor const& x, at::Tensor const& t) { return ((3 * t).cos() - 0.5).view({-1, 1}) * x; }
double const swing_end = std::exp(std::sin(3.0) / 3 - 0.5);

double error_of(std::string const& name, int steps) {
  return std::abs(solve({.name = name, .steps = steps}, swing, doubles(1))[1].item<double>() - swing_end);
}

TEST(SolverTest, EveryOneIsExactForAConstantField) {
  at::Tensor const x0 = normal_tensor({5, 4, 3}, 1, 0, Stream::noise),
                   x1 = normal_tensor({5, 4, 3}, 1, 1, Stream::noise);
  for (auto const& name : solver_names()) {
    for (int const steps : {1, 2, 7}) {
      auto const end = solve(
          {.name = name, .steps = steps}, [&](at::Tensor const&, at::Tensor const&) { return x1 - x0; }, x0);
      EXPECT_LT(test::relative_error(end, x1), 1e-6) << name;
    }
  }
}

TEST(SolverTest, ErrorsFallWithTheOrderOfTheMethod) {
  struct Order {
    char const* name;
    double order;
  };
  for (auto const& [name, order] : {Order{"euler", 1}, Order{"midpoint", 2}, Order{"heun", 2}, Order{"rk4", 4}})
    EXPECT_NEAR(std::log2(error_of(name, 40) / error_of(name, 80)), order, 0.12) << name;
}

TEST(SolverTest, EulerCompoundsAnExponential) {
  at::Tensor const start = doubles(3);
  for (int const steps : {1, 4, 10}) {
    at::Tensor const end = solve(
        {.steps = steps}, [](at::Tensor const& x, at::Tensor const&) { return 0.5 * x; }, start);
    EXPECT_NEAR(end[1].item<double>(), 3 * std::pow(1 + 0.5 / steps, steps), 1e-12);
  }
  EXPECT_EQ(start[0].item<double>(), 3);
}

TEST(SolverTest, EachAsksAtTheTimesOfItsTableau) {
  struct Asked {
    char const* name;
    std::vector<double> times;
  };
  for (auto const& [name, times] :
       {Asked{"euler", {0, 0.5}}, Asked{"midpoint", {0, 0.25, 0.5, 0.75}}, Asked{"heun", {0, 0.5, 0.5, 1}},
        Asked{"rk4", {0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1}}}) {
    std::vector<double> seen;
    solve(
        {.name = name, .steps = 2},
        [&](at::Tensor const& x, at::Tensor const& t) {
          seen.push_back(t[0].item<double>());
          return x;
        },
        doubles(1));
    EXPECT_EQ(seen, times) << name;
  }
}

TEST(Dopri5Test, MeetsItsTolerance) {
  double before = 1;
  for (double const rtol : {1e-3, 1e-5, 1e-7}) {
    auto const end = solve({.name = "dopri5", .steps = 1, .rtol = rtol, .atol = rtol}, swing, doubles(1));
    double const error = std::abs(end[0].item<double>() - swing_end);
    EXPECT_LT(error, 10 * rtol);
    EXPECT_LT(error, before);
    before = error;
  }
}

TEST(Dopri5Test, IsOfFifthOrder) {
  // One step each way: tolerances that accept anything, steps that 1/steps sets and the last grows into.
  auto const one_step_error = [](double length) {
    auto const field = [length](at::Tensor const& x, at::Tensor const& t) { return length * swing(x, length * t); };
    auto const end = solve({.name = "dopri5", .steps = 1, .rtol = 1e6, .atol = 1e6}, field, doubles(1));
    return std::abs(end[0].item<double>() - std::exp(std::sin(3 * length) / 3 - 0.5 * length));
  };
  EXPECT_NEAR(std::log2(one_step_error(0.1) / one_step_error(0.05)), 6, 0.3);  // local error: one more than the order
}

TEST(Dopri5Test, ASampleGoesItsOwnWayWhateverIsBesideIt) {
  // The second sample's field is wild, so it takes many steps of its own.
  auto const field = [](at::Tensor const& x, at::Tensor const& t) {
    return x * at::tensor({1.0, 25.0}, at::kDouble).slice(0, 0, x.size(0)).view({-1, 1}) * (1 - t).view({-1, 1});
  };
  SolverOptions const options{.name = "dopri5", .steps = 2, .rtol = 1e-6, .atol = 1e-9};
  auto const both = solve(options, field, doubles(1)), alone = solve(options, field, doubles(1, 1));
  EXPECT_EQ(both[0].item<double>(), alone[0].item<double>());
  EXPECT_NEAR(both[0].item<double>(), std::exp(0.5), 1e-5);
  EXPECT_NEAR(both[1].item<double>() / std::exp(12.5), 1, 1e-4);
}

TEST(Dopri5Test, AVelocityThatIsNotFiniteOrTooManyStepsEndItWithTheCause) {
  auto const nan = [](at::Tensor const& x, at::Tensor const&) { return x * std::nan(""); };
  EXPECT_THROW(solve({.name = "dopri5"}, nan, doubles(1)), std::runtime_error);
  EXPECT_THROW(solve({.name = "dopri5", .rtol = 1e-12, .atol = 1e-14, .most_steps = 3}, swing, doubles(1)),
               std::runtime_error);
}

TEST(SolverTest, AnUnknownNameOrNoStepIsAnErrorThatSaysWhatIsValid) {
  VelocityField const field = [](at::Tensor const& x, at::Tensor const&) { return x; };
  try {
    solve({.name = "rk5"}, field, doubles(1));
    FAIL() << "accepted";
  } catch (std::invalid_argument const& error) {
    EXPECT_NE(std::string(error.what()).find("'rk5', use one of: euler, midpoint, heun, rk4, dopri5"),
              std::string::npos)
        << error.what();
  }
  EXPECT_THROW(solve({.steps = 0}, field, doubles(1)), std::invalid_argument);
  EXPECT_THROW(solve({.name = "dopri5", .rtol = 0}, field, doubles(1)), std::invalid_argument);
}

// x0 ~ N(0,1), x1 ~ N(2, 0.5^2) independent: x_t is normal, and E[x1 - x0 | x_t] = 2 + (0.25 t - (1-t)) / var_t (x -
// 2t).
TEST(StochasticTest, KeepsTheMarginalsOfTheOdeAtAnyEta) {
  auto const field = [](at::Tensor const& x, at::Tensor const& t) {
    at::Tensor const s = t.view({-1, 1}), variance = (1 - s).square() + 0.25 * s.square();
    return 2 + (0.25 * s - (1 - s)) / variance * (x - 2 * s);
  };
  constexpr std::int64_t n = 10000;  // the mean is off by 0.005, the deviation by 0.0035, one sigma each
  at::Tensor const start = normal_tensor({n, 1}, 1, 0, Stream::noise).to(at::kDouble);
  auto const noise = [](int i) {
    return normal_tensor({n, 1}, 1, static_cast<std::uint64_t>(i) + 1, Stream::noise).to(at::kDouble);
  };
  for (double const eta : {0.0, 0.5, 2.0}) {
    at::Tensor const end = solve_stochastic(field, start, 200, eta, noise);
    EXPECT_NEAR(end.mean().item<double>(), 2, 0.02) << eta;
    EXPECT_NEAR(end.std().item<double>(), 0.5, 0.02) << eta;
  }
}

TEST(StochasticTest, WithoutNoiseItIsEuler) {
  auto const field = [](at::Tensor const& x, at::Tensor const& t) { return swing(x, t); };
  EXPECT_TRUE(at::equal(solve_stochastic(field, doubles(1), 5, 0, {}), solve({.steps = 5}, field, doubles(1))));
}

}  // namespace
}  // namespace duoflow::model
