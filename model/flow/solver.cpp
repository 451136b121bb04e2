#include "model/flow/solver.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::model {
namespace {

at::Tensor at_time(at::Tensor const& x, double t) { return at::full({x.size(0)}, t, x.options()); }

at::Tensor euler_step(VelocityField const& field, at::Tensor const& x, double t, double dt) {
  return x + dt * field(x, at_time(x, t));
}

at::Tensor midpoint_step(VelocityField const& field, at::Tensor const& x, double t, double dt) {
  at::Tensor const middle = x + dt / 2 * field(x, at_time(x, t));
  return x + dt * field(middle, at_time(x, t + dt / 2));
}

at::Tensor heun_step(VelocityField const& field, at::Tensor const& x, double t, double dt) {
  at::Tensor const k1 = field(x, at_time(x, t)), k2 = field(x + dt * k1, at_time(x, t + dt));
  return x + dt / 2 * (k1 + k2);
}

at::Tensor rk4_step(VelocityField const& field, at::Tensor const& x, double t, double dt) {
  at::Tensor const k1 = field(x, at_time(x, t));
  at::Tensor const k2 = field(x + dt / 2 * k1, at_time(x, t + dt / 2));
  at::Tensor const k3 = field(x + dt / 2 * k2, at_time(x, t + dt / 2));
  at::Tensor const k4 = field(x + dt * k3, at_time(x, t + dt));
  return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4);
}

struct FixedStep {
  char const* name;
  at::Tensor (*step)(VelocityField const& field, at::Tensor const& x, double t, double dt);
};
constexpr std::array kFixed{FixedStep{"euler", euler_step}, FixedStep{"midpoint", midpoint_step},
                            FixedStep{"heun", heun_step}, FixedStep{"rk4", rk4_step}};

// The tableau of Dormand and Prince. The last row is the fifth-order weights too; `error` is these less the fourth's.
constexpr std::array<double, 7> kTimes{0, 1. / 5, 3. / 10, 4. / 5, 8. / 9, 1, 1};
constexpr double kRows[7][6] = {
    {},
    {1. / 5},
    {3. / 40, 9. / 40},
    {44. / 45, -56. / 15, 32. / 9},
    {19372. / 6561, -25360. / 2187, 64448. / 6561, -212. / 729},
    {9017. / 3168, -355. / 33, 46732. / 5247, 49. / 176, -5103. / 18656},
    {35. / 384, 0, 500. / 1113, 125. / 192, -2187. / 6784, 11. / 84},
};
constexpr std::array<double, 7> kError{71. / 57600, 0, -71. / 16695, 71. / 1920, -17253. / 339200, 22. / 525, -1. / 40};

at::Tensor like_samples(at::Tensor const& per_sample, at::Tensor const& x) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(x.dim()), 1);
  shape[0] = x.size(0);
  return per_sample.view(shape);
}

// One trial step of every sample by its own dt [B]: x', the velocity there, and the error norm [B].
struct Trial {
  at::Tensor x, velocity, error;
};
Trial dopri5_trial(SolverOptions const& options, VelocityField const& field, at::Tensor const& x,
                   at::Tensor const& velocity, at::Tensor const& t, at::Tensor const& dt) {
  at::Tensor const step = like_samples(dt, x);
  std::array<at::Tensor, 7> k{velocity};
  at::Tensor point;
  for (std::size_t stage = 1; stage < k.size(); ++stage) {
    at::Tensor slope = kRows[stage][0] * k[0];
    for (std::size_t j = 1; j < stage; ++j) slope = slope + kRows[stage][j] * k[j];
    point = x + step * slope;
    k[stage] = field(point, t + kTimes[stage] * dt);
  }
  at::Tensor difference = kError[0] * k[0];
  for (std::size_t j = 1; j < k.size(); ++j) difference = difference + kError[j] * k[j];
  at::Tensor const scale = options.atol + options.rtol * at::maximum(x.abs(), point.abs());
  return {point, k[6], (step * difference / scale).flatten(1).square().mean(1).sqrt()};
}

// The host decides here when it ends, so it waits for the device in every step: for evaluation and editing, never for
// training.
at::Tensor dopri5(SolverOptions const& options, VelocityField const& field, at::Tensor x) {
  at::Tensor t = at_time(x, 0), dt = at_time(x, 1.0 / options.steps);
  at::Tensor velocity = field(x, t);
  for (int i = 0; i < options.most_steps; ++i) {
    Trial const trial = dopri5_trial(options, field, x, velocity, t, dt);
    // Steps are as many as the samples need: here, and where all are done, the host waits. Edits only, no step of training.
    if (!at::isfinite(trial.error).all().item<bool>())
      throw std::runtime_error(
          "the velocity is not finite where dopri5 asks for it; look for NaN in the weights, or take fixed steps");
    at::Tensor const accepted = trial.error <= 1, mask = like_samples(accepted, x);
    x = at::where(mask, trial.x, x);
    velocity = at::where(mask, trial.velocity, velocity);
    t = at::where(accepted, t + dt, t);
    at::Tensor const factor = (0.9 * trial.error.clamp_min(1e-10).pow(-0.2)).clamp(0.2, 5.0);
    // What is left may be a rounding of t: then the sample is done.
    at::Tensor const left = at::where(1 - t > 1e-6, 1 - t, at::zeros_like(t));
    dt = at::minimum(at::where(left > 0, dt * factor, left), left);
    if (left.max().item<double>() == 0) return x;
  }
  throw std::runtime_error(
      fmt::format("dopri5 needs more than {} steps for rtol = {} and atol = {}; raise them, or take fixed steps",
                  options.most_steps, options.rtol, options.atol));
}

}  // namespace

std::vector<std::string> const& solver_names() {
  static std::vector<std::string> const names = [] {
    std::vector<std::string> all;
    for (FixedStep const& method : kFixed) all.emplace_back(method.name);
    all.emplace_back("dopri5");
    return all;
  }();
  return names;
}

at::Tensor solve(SolverOptions const& options, VelocityField const& field, at::Tensor x0) {
  if (options.steps < 1)
    throw std::invalid_argument(fmt::format("the ODE solver was given {} steps, use at least 1", options.steps));
  if (options.name == "dopri5") {
    if (!(options.rtol > 0 && options.atol > 0))
      throw std::invalid_argument(
          fmt::format("dopri5 with rtol = {} and atol = {}, both must be positive", options.rtol, options.atol));
    return dopri5(options, field, std::move(x0));
  }
  auto const* const method =
      std::find_if(kFixed.begin(), kFixed.end(), [&](FixedStep const& m) { return options.name == m.name; });
  if (method == kFixed.end())
    throw std::invalid_argument(
        fmt::format("unknown ODE solver '{}', use one of: {}", options.name, fmt::join(solver_names(), ", ")));
  double const dt = 1.0 / options.steps;
  for (int i = 0; i < options.steps; ++i) x0 = method->step(field, x0, i * dt, dt);
  return x0;
}

at::Tensor solve_stochastic(VelocityField const& field, at::Tensor x, int steps, double eta,
                            std::function<at::Tensor(int)> const& noise) {
  if (steps < 1) throw std::invalid_argument(fmt::format("the sampler was given {} steps, use at least 1", steps));
  if (!(eta >= 0)) throw std::invalid_argument(fmt::format("the sampler's eta is {}, it must not be negative", eta));
  double const dt = 1.0 / steps;
  for (int i = 0; i < steps; ++i) {
    double const t = i * dt;
    at::Tensor const v = field(x, at_time(x, t));
    at::Tensor const moved = x + dt * (v + eta * (t * v - x));
    x = eta == 0 ? moved : moved + std::sqrt(2 * eta * (1 - t) * dt) * noise(i);
  }
  return x;
}

}  // namespace duoflow::model
