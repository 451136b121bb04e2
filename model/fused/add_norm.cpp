#include "model/fused/add_norm.h"

#include <optional>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/cuda/operators.h"
#include "model/fused/gated_add.h"
#include "model/fused/norm.h"
#include "model/fused/row_blocks.h"
#include "model/fused/rows.h"
#include "model/fused/shown.h"

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Optional = std::optional<at::Tensor>;

char* at_number(at::Tensor const& t, std::int64_t number) {
  return static_cast<char*>(t.data_ptr()) + number * static_cast<std::int64_t>(t.element_size());
}

// Of a [D] or [B,1,D] tensor, null if undefined.
float const* of_sample(at::Tensor const& t, std::int64_t sample) {
  return t.defined() ? t.const_data_ptr<float>() + (t.dim() == 3 ? sample * t.size(2) : 0) : nullptr;
}

struct AddNorm : torch::autograd::Function<AddNorm> {
  static variable_list forward(AutogradContext* context, at::Tensor const& x, Optional const& gate_in, at::Tensor const& y_in,
                               Optional const& weight_in, Optional const& shift_in, double eps, at::ScalarType type) {
    auto const contiguous = [](Optional const& t) { return t ? t->contiguous() : at::Tensor(); };
    at::Tensor const gate = contiguous(gate_in), shift = contiguous(shift_in), y = y_in.contiguous();
    at::Tensor const weight = weight_in ? weight_in->contiguous() : at::ones({x.size(2)}, x.options());
    at::Tensor const in = x.stride(2) == 1 ? x : x.contiguous();  // the first tokens of a longer sequence are read in place
    std::int64_t const tokens = y.size(1), width = y.size(2);
    at::Tensor const sum = at::empty(y.sizes(), x.options()), out = at::empty(y.sizes(), x.options().dtype(type));
    at::Tensor const moments = at::empty({y.size(0) * tokens, 2}, x.options());
    Shown const shown("duoflow::add_norm", [&] { return Moves{{in, gate, y, weight, shift}, {sum, out, moments}}; });
    for_row_blocks(y.size(0), tokens, 0, nullptr, [&](std::int64_t sample, std::int64_t first, std::int64_t end, float*) {
      float* const room = rows::room<1>(width);
      for (std::int64_t token = first; token < end; ++token) {
        std::int64_t const index = sample * tokens + token;
        auto const* const residual = in.const_data_ptr<float>() + sample * in.stride(0) + token * in.stride(1);
        auto* const result = sum.mutable_data_ptr<float>() + index * width;
        auto const* const branch = rows::read(at_number(y, index * width), y.scalar_type(), room, width);
        if (gate.defined()) rows::add_product(residual, of_sample(gate, sample), branch, result, width);
        else rows::sum(residual, branch, result, width);
        auto const m = rows::moments(result, width, static_cast<float>(eps));
        moments.mutable_data_ptr<float>()[2 * index] = m.mean;
        moments.mutable_data_ptr<float>()[2 * index + 1] = m.inverse_deviation;
        float* const normalized = rows::place(at_number(out, index * width), type, room);
        rows::normalize(result, m, of_sample(weight, sample), of_sample(shift, sample), normalized, width);
        rows::store(normalized, type, at_number(out, index * width), width);
      }
    });
    context->save_for_backward({gate, gate.defined() ? y : at::Tensor(), sum, weight, moments});
    context->saved_data["branch"] = y.scalar_type();
    context->saved_data["weighted"] = weight_in.has_value();
    context->saved_data["shifted"] = shift.defined();
    return {sum, out};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const &gate = saved[0], &y = saved[1], &sum = saved[2], &weight = saved[3], &moments = saved[4];
    auto const branch_type = context->saved_data["branch"].toScalarType();
    bool const shifted = context->saved_data["shifted"].toBool();
    std::size_t const weight_input = gate.defined() ? 3 : 2;  // among the inputs that are tensors
    bool const weight_sums = context->saved_data["weighted"].toBool() &&
                             (context->needs_input_grad(weight_input) || (shifted && context->needs_input_grad(weight_input + 1)));
    bool const gate_sums = gate.defined() && context->needs_input_grad(1);
    at::Tensor const d_sum = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor(), d_out = gradients[1].contiguous();
    std::int64_t const samples = sum.size(0), tokens = sum.size(1), width = sum.size(2);
    at::Tensor const dx = at::empty_like(sum), dy = at::empty(sum.sizes(), sum.options().dtype(branch_type));
    // The blocks of norm and of gated_add, whose sums these then are to the bit.
    std::int64_t const groups = gate.defined() || weight.dim() == 3 ? samples : 1, rows_of_group = samples * tokens / groups;
    at::Tensor const totals = at::empty({groups, 3, width}, sum.options());  // of weight, shift, gate
    Shown const shown("duoflow::add_norm_backward", [&] {
      return Moves{{d_sum, d_out, sum, weight, moments, gate, y}, {dx, dy, weight_sums || gate_sums ? totals : at::Tensor()}};
    });
    for_row_blocks(groups, rows_of_group, 3 * width, weight_sums || gate_sums ? totals.mutable_data_ptr<float>() : nullptr,
                   [&](std::int64_t group, std::int64_t first, std::int64_t end, float* block) {
      float *const room = rows::room<1>(width), *const room_of_dy = rows::room<2>(width);
      auto const* const m = moments.const_data_ptr<float>();
      for (std::int64_t index = group * rows_of_group + first; index < group * rows_of_group + end; ++index) {
        std::int64_t const sample = index / tokens;
        auto* const to = dx.mutable_data_ptr<float>() + index * width;
        auto const* const gradient = rows::read(at_number(d_out, index * width), d_out.scalar_type(), room, width);
        rows::normalize_back(sum.const_data_ptr<float>() + index * width, {m[2 * index], m[2 * index + 1]}, of_sample(weight, sample),
                             gradient, to, weight_sums ? block : nullptr, weight_sums && shifted ? block + width : nullptr, width);
        if (d_sum.defined()) rows::add(d_sum.const_data_ptr<float>() + index * width, to, width);
        float* made = to;
        if (gate.defined()) {
          made = rows::place(at_number(dy, index * width), branch_type, room_of_dy);
          rows::add_product_back(to, of_sample(gate, sample), rows::read(at_number(y, index * width), branch_type, room, width), made,
                                 gate_sums ? block + 2 * width : nullptr, width);
        }
        rows::store(made, branch_type, at_number(dy, index * width), width);
      }
    });
    auto const total = [&](std::int64_t i, at::Tensor const& like) {
      at::Tensor const sums = totals.select(1, i);
      return like.dim() == 3 ? sums.unsqueeze(1) : sums.sum(0);
    };
    return {dx, gate_sums ? total(2, gate) : at::Tensor(), dy, weight_sums ? total(0, weight) : at::Tensor(),
            weight_sums && shifted ? total(1, weight) : at::Tensor(), {}, {}};
  }
};

}  // namespace

SumAndNorm add_norm(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y, NormOf const& of) {
  if (cuda::takes(y) && x.scalar_type() == at::kFloat && y.scalar_type() == of.type) return cuda::add_norm(x, gate, y, of);
  if (!x.is_cpu() || x.scalar_type() != at::kFloat) {
    at::Tensor const sum = gated_add(x, gate, y);
    return {sum, norm(sum, of.weight, of.shift, of.eps, of.type)};
  }
  auto const if_defined = [](at::Tensor const& t) { return t.defined() ? Optional(t) : std::nullopt; };
  auto const both = AddNorm::apply(x, if_defined(gate), y, if_defined(of.weight), if_defined(of.shift), of.eps, of.type);
  return {both[0], both[1]};
}

}  // namespace duoflow::model
