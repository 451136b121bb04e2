#include "model/fused/gated_add.h"

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

char* element_of(at::Tensor const& t, std::int64_t element) {
  return static_cast<char*>(t.data_ptr()) + element * static_cast<std::int64_t>(t.element_size());
}

struct GatedAdd : torch::autograd::Function<GatedAdd> {
  static at::Tensor forward(AutogradContext* context, at::Tensor const& x, std::optional<at::Tensor> const& gate_in, at::Tensor const& y_in) {
    at::Tensor const gate = gate_in ? gate_in->contiguous() : at::Tensor();
    at::Tensor const y = y_in.contiguous(), out = at::empty(y.sizes(), x.options());
    std::int64_t const tokens = y.size(1), width = y.size(2);
    at::Tensor const in = x.stride(2) == 1 ? x : x.contiguous();  // the first tokens of a longer sequence are read in place
    Shown const shown("duoflow::gated_add", [&] { return Moves{{in, gate, y}, {out}}; });
    for_row_blocks(y.size(0), tokens, 0, nullptr, [&](std::int64_t sample, std::int64_t first, std::int64_t end, float*) {
      float* const room = rows::room<1>(width);
      for (std::int64_t token = first; token < end; ++token) {
        std::int64_t const place = (sample * tokens + token) * width;
        auto const* const branch = rows::read(element_of(y, place), y.scalar_type(), room, width);
        auto const* const residual = in.const_data_ptr<float>() + sample * in.stride(0) + token * in.stride(1);
        auto* const result = out.mutable_data_ptr<float>() + place;
        if (gate.defined()) rows::add_product(residual, gate.const_data_ptr<float>() + sample * width, branch, result, width);
        else rows::sum(residual, branch, result, width);
      }
    });
    context->saved_data["type"] = y.scalar_type();
    if (gate.defined()) context->save_for_backward({gate, y});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    if (saved.empty()) return {gradients[0], at::Tensor(), gradients[0].to(context->saved_data["type"].toScalarType())};
    at::Tensor const &gate = saved[0], &y = saved[1], g = gradients[0].contiguous();
    std::int64_t const tokens = y.size(1), width = y.size(2);
    at::Tensor const dy = at::empty_like(y), dgate = at::empty_like(gate);
    Shown const shown("duoflow::gated_add_backward", [&] {
      return Moves{{g, gate, y}, {dy, context->needs_input_grad(1) ? dgate : at::Tensor()}};
    });
    for_row_blocks(y.size(0), tokens, width, context->needs_input_grad(1) ? dgate.mutable_data_ptr<float>() : nullptr,
                   [&](std::int64_t sample, std::int64_t first, std::int64_t end, float* sum) {
                     float *const room = rows::room<1>(width), *const room_of_dy = rows::room<2>(width);
                     for (std::int64_t token = first; token < end; ++token) {
                       std::int64_t const place = (sample * tokens + token) * width;
                       auto const* const branch = rows::read(element_of(y, place), y.scalar_type(), room, width);
                       float* const out = rows::place(element_of(dy, place), y.scalar_type(), room_of_dy);
                       rows::add_product_back(g.const_data_ptr<float>() + place, gate.const_data_ptr<float>() + sample * width,
                                              branch, out, sum, width);
                       rows::store(out, y.scalar_type(), element_of(dy, place), width);
                     }
                   });
    return {g, context->needs_input_grad(1) ? dgate : at::Tensor(), dy};
  }
};

}  // namespace

at::Tensor gated_add_by_aten(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y) {
  return gate.defined() ? at::addcmul(x, gate, y.to(at::kFloat)) : x + y;
}

at::Tensor gated_add(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y) {
  if (cuda::takes(y) && x.scalar_type() == at::kFloat) return cuda::gated_add(x, gate, y);
  if (!x.is_cpu()) return gated_add_by_aten(x, gate, y);
  return GatedAdd::apply(x, gate.defined() ? std::optional(gate) : std::nullopt, y);
}

}  // namespace duoflow::model
