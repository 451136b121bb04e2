#include "model/fused/norm.h"

#include <optional>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/cuda/operators.h"
#include "model/fused/row_blocks.h"
#include "model/fused/rows.h"
#include "model/fused/shown.h"

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Optional = std::optional<at::Tensor>;  // an input of a Function is a defined tensor or none

// Rows of one weight: all, or those of a sample.
struct Groups {
  std::int64_t groups, rows, width;
  Groups(at::Tensor const& x, bool per_sample)
      : groups(per_sample ? x.size(0) : 1), rows(x.numel() / x.size(-1) / groups), width(x.size(-1)) {}
};

char* row_of(at::Tensor const& t, std::int64_t row) {
  return static_cast<char*>(t.data_ptr()) + row * t.size(-1) * static_cast<std::int64_t>(t.element_size());
}

float const* floats(at::Tensor const& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }

struct Norm : torch::autograd::Function<Norm> {
  static at::Tensor forward(AutogradContext* context, at::Tensor const& x_in, Optional const& weight_in, Optional const& shift_in,
                            double eps, at::ScalarType type) {
    at::Tensor const x = x_in.contiguous(), shift = shift_in ? shift_in->contiguous() : at::Tensor();
    at::Tensor const weight = weight_in ? weight_in->contiguous() : at::ones({x.size(-1)}, x.options());
    bool const per_sample = weight.dim() == 3;
    Groups const g(x, per_sample);
    at::Tensor const y = at::empty(x.sizes(), x.options().dtype(type)), moments = at::empty({g.groups * g.rows, 2}, x.options());
    auto* const kept = moments.mutable_data_ptr<float>();
    Shown const shown("duoflow::norm", [&] { return Moves{{x, weight, shift}, {y, moments}}; });
    for_row_blocks(g.groups, g.rows, 0, nullptr, [&](std::int64_t group, std::int64_t first, std::int64_t end, float*) {
      float* const room = rows::room<1>(g.width);
      auto const* const w = floats(weight) + group * g.width;
      auto const* const s = shift.defined() ? floats(shift) + group * g.width : nullptr;
      for (std::int64_t row = group * g.rows + first; row < group * g.rows + end; ++row) {
        auto const* const in = floats(x) + row * g.width;
        auto const m = rows::moments(in, g.width, static_cast<float>(eps));
        kept[2 * row] = m.mean;
        kept[2 * row + 1] = m.inverse_deviation;
        float* const out = rows::place(row_of(y, row), type, room);
        rows::normalize(in, m, w, s, out, g.width);
        rows::store(out, type, row_of(y, row), g.width);
      }
    });
    context->save_for_backward({x, weight, moments});
    context->saved_data["weighted"] = weight_in.has_value();
    context->saved_data["shifted"] = shift.defined();
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const &x = saved[0], &weight = saved[1], &moments = saved[2], dy = gradients[0].contiguous();
    Groups const g(x, weight.dim() == 3);
    bool const shifted = context->saved_data["shifted"].toBool();
    bool const sums = context->saved_data["weighted"].toBool() && (context->needs_input_grad(1) || (shifted && context->needs_input_grad(2)));
    at::Tensor const dx = at::empty_like(x), totals = at::empty({g.groups, 2, g.width}, x.options());
    Shown const shown("duoflow::norm_backward", [&] { return Moves{{x, weight, moments, dy}, {dx, sums ? totals : at::Tensor()}}; });
    for_row_blocks(g.groups, g.rows, 2 * g.width, sums ? totals.mutable_data_ptr<float>() : nullptr,
                   [&](std::int64_t group, std::int64_t first, std::int64_t end, float* sum) {
                     float* const room = rows::room<1>(g.width);
                     auto const* const w = floats(weight) + group * g.width;
                     for (std::int64_t row = group * g.rows + first; row < group * g.rows + end; ++row) {
                       auto const* const m = floats(moments) + 2 * row;
                       rows::normalize_back(floats(x) + row * g.width, {m[0], m[1]}, w, rows::read(row_of(dy, row), dy.scalar_type(), room, g.width),
                                            dx.mutable_data_ptr<float>() + row * g.width, sum,
                                            sum != nullptr && shifted ? sum + g.width : nullptr, g.width);
                     }
                   });
    if (!sums) return {dx, {}, {}, {}, {}};
    return {dx, totals.select(1, 0).reshape(weight.sizes()), shifted ? totals.select(1, 1).reshape(weight.sizes()) : at::Tensor(), {}, {}};
  }
};

}  // namespace

at::Tensor norm_by_aten(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& shift, double eps, at::ScalarType type) {
  if (!weight.defined() || weight.dim() == 1) return at::layer_norm(x, {x.size(-1)}, weight, {}, eps).to(type);
  at::Tensor const normalized = at::layer_norm(x, {x.size(-1)}, {}, {}, eps);
  return (shift.defined() ? at::addcmul(shift, normalized, weight) : normalized * weight).to(type);
}

at::Tensor norm(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& shift, double eps, at::ScalarType type) {
  if (cuda::takes(x) && x.scalar_type() == at::kFloat) return cuda::norm(x, weight, shift, eps, type);
  if (!x.is_cpu() || x.scalar_type() != at::kFloat) return norm_by_aten(x, weight, shift, eps, type);
  auto const if_defined = [](at::Tensor const& t) { return t.defined() ? Optional(t) : std::nullopt; };
  return Norm::apply(x, if_defined(weight), if_defined(shift), eps, type);
}

}  // namespace duoflow::model
