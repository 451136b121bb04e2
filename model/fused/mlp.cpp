#include "model/fused/mlp.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/cuda/operators.h"
#include "model/fused/rows.h"
#include "model/fused/shown.h"

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kNumbersAtATime = 2048;  // a multiple of every vector's length

at::Tensor activation_of(at::Tensor const& x) { return cuda::takes(x) ? cuda::gelu(x) : at::gelu(x); }

void gelu_back_on_cpu(at::Tensor const& hidden, at::Tensor const& g, at::Tensor const& y) {
  auto const bytes = static_cast<std::int64_t>(hidden.element_size());
  auto const* const x = static_cast<char const*>(hidden.const_data_ptr());
  auto *const slopes = static_cast<char*>(g.mutable_data_ptr()), *const out = y.defined() ? static_cast<char*>(y.mutable_data_ptr()) : nullptr;
  std::int64_t const count = hidden.numel(), blocks = (count + kNumbersAtATime - 1) / kNumbersAtATime;
  // By whole blocks, so that what of a vector is left over is so with any number of threads.
  at::parallel_for(0, blocks, 8, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t const first = begin * kNumbersAtATime, n = std::min(end * kNumbersAtATime, count) - first;
    rows::gelu_back(hidden.scalar_type(), x + first * bytes, slopes + first * bytes, out == nullptr ? nullptr : out + first * bytes, n);
  });
}

// g, a gradient of gelu(hidden) that nothing else reads, becomes that of hidden. Returns gelu(hidden) if it is `wanted`.
at::Tensor gelu_back(at::Tensor const& hidden, at::Tensor& g, bool wanted) {
  bool const on_cpu = hidden.is_cpu() && (hidden.scalar_type() == at::kFloat || hidden.scalar_type() == at::kBFloat16);
  if (!on_cpu && !cuda::takes(hidden)) {
    g = at::gelu_backward(g, hidden);
    return wanted ? at::gelu(hidden) : at::Tensor();
  }
  g = g.contiguous();
  at::Tensor const y = wanted ? at::empty_like(hidden) : at::Tensor();
  Shown const shown("duoflow::gelu_backward", [&] { return Moves{{hidden, g}, {g, y}}; });
  if (on_cpu) gelu_back_on_cpu(hidden, g, y);
  else cuda::gelu_back(hidden, g, y);
  return y;
}

at::Tensor as_rows(at::Tensor const& x) { return x.reshape({-1, x.size(-1)}).contiguous(); }

struct Mlp : torch::autograd::Function<Mlp> {
  static at::Tensor forward(AutogradContext* context, at::Tensor const& x, at::Tensor const& up, at::Tensor const& down) {
    at::Tensor const hidden = at::linear(x, up);
    context->save_for_backward({up.requires_grad() ? x : at::Tensor(), hidden, up, down});
    return at::linear(activation_of(hidden), down);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const &x = saved[0], &up = saved[2], &down = saved[3], hidden = as_rows(saved[1]), dy = gradients[0].reshape({-1, down.size(0)});
    at::Tensor g = at::mm(dy, down), d_down, d_up, dx;
    at::Tensor activated = gelu_back(hidden, g, context->needs_input_grad(2));
    if (activated.defined()) d_down = at::mm(dy.t(), activated);
    activated.reset();  // its memory is free for the next products
    if (context->needs_input_grad(1)) d_up = at::mm(g.t(), x.reshape({-1, x.size(-1)}));
    if (context->needs_input_grad(0)) dx = at::mm(g, up).view(gradients[0].sizes());
    return {dx, d_up, d_down};
  }
};

}  // namespace

at::Tensor mlp_by_aten(at::Tensor const& x, at::Tensor const& up, at::Tensor const& down) {
  return at::linear(at::gelu(at::linear(x, up)), down);
}

at::Tensor mlp(at::Tensor const& x, at::Tensor const& up, at::Tensor const& down) { return Mlp::apply(x, up, down); }

}  // namespace duoflow::model
