#pragma once
// Solvers of dx/dt = v(x, t) from t = 0 to 1.
//
//   euler, midpoint, heun, rk4   `steps` equal steps, of order 1, 2, 2, 4 with 1, 2, 2, 4 evaluations each
//   dopri5                       Dormand and Prince 5(4) (1980), each sample with steps of its own: the local error's
//   root
//                                mean square over atol + rtol max(|x|, |x'|) stays below 1; the first step is 1/steps
// Every sample's result is its own: it does not depend on what else is in the batch.

#include <functional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// x [B,...], t [B] of x's type -> v [B,...].
using VelocityField = std::function<at::Tensor(at::Tensor const& x, at::Tensor const& t)>;

struct SolverOptions {
  std::string name = "euler";
  int steps = 4;
  double rtol = 1e-4, atol = 1e-5;  // dopri5
  int most_steps = 1000;            // dopri5: tried ones, of the slowest sample
};

std::vector<std::string> const& solver_names();

// std::invalid_argument: an unknown name (lists them), fewer than one step, tolerances that are not positive.
// std::runtime_error: dopri5 meets a velocity that is not finite, or needs more than most_steps.
at::Tensor solve(SolverOptions const& options, VelocityField const& field, at::Tensor x0);

// For x0 = noise on the linear path: dx = (v + eta (t v - x)) dt + sqrt(2 eta (1-t)) dW, Euler-Maruyama in `steps`
// steps. t v - x is (1-t) times the score, so the marginals are the ODE's at any eta >= 0; 0 is euler (SiT, Ma et al.
// 2401.08740, with diffusion eta (1-t)). noise(i): standard normal of x's shape for step i.
at::Tensor solve_stochastic(VelocityField const& field, at::Tensor x0, int steps, double eta,
                            std::function<at::Tensor(int)> const& noise);

}  // namespace duoflow::model
