#pragma once
// The path from x0 to x1 and the velocity to learn on it; eps is standard normal.
//
//   linear            x_t = (1-t) x0 + t x1 (Lipman et al. 2210.02747; seed document)
//   bridge_sqrt       x_t = ... + sigma sqrt(t(1-t)) eps (LBM, 2503.07535)
//   bridge_quadratic  x_t = ... + sigma t(1-t) eps
//   noisy_linear      the same x_t, target x1 - x0 (what the LVSM family's code does with its noise_scale)
//
// The target of the first three is (x1 - x_t) / (1-t), so that the one-step estimate x_t + (1-t) target is x1 at every
// t, with noise too. noisy_linear's misses x1 by the noise: x_hat, and with it the render loss, sees sigma(t) eps that
// no velocity explains.

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

enum class Path { linear, bridge_sqrt, bridge_quadratic, noisy_linear };
std::vector<std::string> const& path_names();  // in the order of Path
Path path_of_name(std::string const& name);    // std::invalid_argument lists the names

struct PathPoint {
  at::Tensor x_t, target;  // [B,n,d]: the point and the velocity to learn there
};
// x0, x1 [B,n,d], t [B]; noise [B,n,d], not read by `linear` nor where sigma is 0. Near t = 1 the sqrt bridge's target
// grows as sigma / sqrt(1-t): 1-t counts as at least 1e-5 there.
PathPoint path_point(Path path, double sigma, at::Tensor const& x0, at::Tensor const& x1, at::Tensor const& t,
                     at::Tensor const& noise);
PathPoint linear_path(at::Tensor const& x0, at::Tensor const& x1, at::Tensor const& t);

}  // namespace duoflow::model
