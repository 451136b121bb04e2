#include "model/flow/solver.h"

#include <array>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::model {

namespace {

at::Tensor euler_step(VelocityField const& field, at::Tensor const& x, double t, double dt) {
  return x + dt * field(x, t);
}

struct Solver {
  char const* name;
  at::Tensor (*step)(VelocityField const& field, at::Tensor const& x, double t, double dt);
};
constexpr std::array kSolvers{Solver{"euler", euler_step}};

Solver const& find_solver(std::string const& name) {
  std::string names;
  for (Solver const& solver : kSolvers) {
    if (solver.name == name) return solver;
    names += names.empty() ? solver.name : std::string(", ") + solver.name;
  }
  throw std::invalid_argument(fmt::format("unknown ODE solver '{}', use one of: {}", name, names));
}

}  // namespace

at::Tensor solve(std::string const& solver, VelocityField const& field, at::Tensor x0, int steps) {
  Solver const& method = find_solver(solver);
  if (steps < 1) throw std::invalid_argument(fmt::format("the ODE solver was given {} steps, use at least 1", steps));
  double const dt = 1.0 / steps;
  for (int i = 0; i < steps; ++i) x0 = method.step(field, x0, i * dt, dt);
  return x0;
}

}  // namespace duoflow::model
