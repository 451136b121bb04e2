#pragma once
#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

using VelocityField = std::function<at::Tensor(at::Tensor const& x, double t)>;
// Integrates dx/dt = v(x,t) from t=0 to 1 in `steps` equal steps. "euler"; std::invalid_argument listing the names.
at::Tensor solve(std::string const& solver, VelocityField const& field, at::Tensor x0, int steps);

}  // namespace duoflow::model
