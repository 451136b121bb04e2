#include "model/flow/path.h"

#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::model {

std::vector<std::string> const& path_names() {
  static std::vector<std::string> const names{"linear", "bridge_sqrt", "bridge_quadratic", "noisy_linear"};
  return names;
}

Path path_of_name(std::string const& name) {
  auto const found = std::find(path_names().begin(), path_names().end(), name);
  if (found == path_names().end())
    throw std::invalid_argument(fmt::format("unknown path '{}', use one of: {}", name, fmt::join(path_names(), ", ")));
  return static_cast<Path>(found - path_names().begin());
}

PathPoint linear_path(at::Tensor const& x0, at::Tensor const& x1, at::Tensor const& t) {
  at::Tensor const s = t.view({-1, 1, 1});
  // Written as two products, not as x0 + t (x1 - x0): that form misses x1 at t = 1 by a rounding.
  return {(1 - s) * x0 + s * x1, x1 - x0};
}

PathPoint path_point(Path path, double sigma, at::Tensor const& x0, at::Tensor const& x1, at::Tensor const& t,
                     at::Tensor const& noise) {
  PathPoint point = linear_path(x0, x1, t);
  if (path == Path::linear || sigma == 0) return point;
  if (!noise.defined()) throw std::invalid_argument("a bridge was given no noise");
  at::Tensor const s = t.view({-1, 1, 1});
  // Noise on x_t, and what of it the target takes away: the same over 1-t, written without that division.
  bool const is_sqrt = path == Path::bridge_sqrt;
  at::Tensor const there = is_sqrt ? (s * (1 - s)).sqrt() : s * (1 - s);
  at::Tensor const away = is_sqrt ? (s / (1 - s).clamp_min(1e-5)).sqrt() : s;
  point.x_t = point.x_t + sigma * there * noise;
  if (path != Path::noisy_linear) point.target = point.target - sigma * away * noise;
  return point;
}

}  // namespace duoflow::model
