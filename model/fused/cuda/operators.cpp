#include "model/fused/cuda/operators.h"

#include <cstdlib>
#include <optional>
#include <string_view>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/cuda/launch.h"
#include "model/fused/shown.h"

namespace duoflow::model::cuda {
namespace {

using kernels::Number;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Optional = std::optional<at::Tensor>;  // an input of a Function is a defined tensor or none

Optional if_defined(at::Tensor const& t) { return t.defined() ? Optional(t) : std::nullopt; }
at::Tensor contiguous(Optional const& t) { return t ? t->contiguous() : at::Tensor(); }

// The device and stream of a tensor, for as long as it lives.
class On {
 public:
  explicit On(at::Tensor const& t) : guard_(t.device()), stream_(c10::cuda::getCurrentCUDAStream(t.device().index()).stream()) {}
  operator void*() const { return stream_; }

 private:
  c10::cuda::CUDAGuard guard_;
  void* stream_;
};

Number number_of(at::ScalarType type) { return type == at::kBFloat16 ? Number::bf16 : Number::fp32; }
float* out(at::Tensor const& t) { return t.defined() && t.numel() > 0 ? t.mutable_data_ptr<float>() : nullptr; }
float const* in(at::Tensor const& t) { return t.defined() ? t.const_data_ptr<float>() : nullptr; }
at::Tensor workspace(std::int64_t count, at::Tensor const& like) { return at::empty({count}, like.options().dtype(at::kFloat)); }

struct Norm : torch::autograd::Function<Norm> {
  static kernels::NormRows rows_of(at::Tensor const& x, at::Tensor const& weight) {
    std::int64_t const groups = weight.defined() && weight.dim() == 3 ? x.size(0) : 1, width = x.size(-1);
    return {groups, x.numel() / width / std::max<std::int64_t>(groups, 1), width};
  }

  static at::Tensor forward(AutogradContext* context, at::Tensor const& x_in, Optional const& weight_in, Optional const& shift_in,
                            double eps, at::ScalarType type) {
    On const stream(x_in);
    at::Tensor const x = x_in.contiguous(), weight = contiguous(weight_in), shift = contiguous(shift_in);
    kernels::NormRows const rows = rows_of(x, weight);
    at::Tensor const y = at::empty(x.sizes(), x.options().dtype(type)), moments = at::empty({rows.groups * rows.rows, 2}, x.options());
    Shown const shown("duoflow::norm", [&] { return Moves{{x, weight, shift}, {y, moments}}; });
    kernels::norm_forward(in(x), in(weight), in(shift), static_cast<float>(eps), y.mutable_data_ptr(), number_of(type), out(moments), rows,
                          stream);
    context->save_for_backward({x, weight, moments});
    context->saved_data["shifted"] = shift.defined();
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const &x = saved[0], &weight = saved[1], &moments = saved[2], dy = gradients[0].contiguous();
    On const stream(x);
    bool const shifted = context->saved_data["shifted"].toBool();
    bool const summed = weight.defined() && (context->needs_input_grad(1) || (shifted && context->needs_input_grad(2)));
    int const sums = summed ? (shifted ? 2 : 1) : 0;
    kernels::NormRows const rows = rows_of(x, weight);
    at::Tensor const dx = at::empty_like(x), totals = at::empty({rows.groups, sums, rows.width}, x.options());
    at::Tensor const partials = workspace(kernels::norm_workspace(rows, sums), x);
    Shown const shown("duoflow::norm_backward", [&] { return Moves{{x, weight, moments, dy}, {dx, totals}}; });
    kernels::norm_backward(in(x), in(weight), in(moments), dy.const_data_ptr(), number_of(dy.scalar_type()), out(dx), sums, out(totals),
                           out(partials), rows, stream);
    auto const total = [&](std::int64_t i) { return i < sums ? totals.select(1, i).reshape(weight.sizes()) : at::Tensor(); };
    return {dx, total(0), total(1), {}, {}};
  }
};

struct SplitHeads : torch::autograd::Function<SplitHeads> {
  static kernels::HeadsShape shape_of(at::Tensor const& projected, std::int64_t parts, std::int64_t width) {
    return {projected.size(0), projected.size(1), parts, projected.size(2) / parts / width, width};
  }

  static variable_list forward(AutogradContext* context, at::Tensor const& projected_in, Optional const& first_gain,
                               Optional const& second_gain, double factor, double eps, std::int64_t parts, std::int64_t width) {
    On const stream(projected_in);
    at::Tensor const projected = projected_in.contiguous(), gain_0 = contiguous(first_gain), gain_1 = contiguous(second_gain);
    kernels::HeadsShape const shape = shape_of(projected, parts, width);
    at::Tensor const inverse = at::empty({shape.samples * shape.tokens, 2, shape.heads}, projected.options().dtype(at::kFloat));
    variable_list heads;
    void* places[3] = {};
    for (std::int64_t p = 0; p < parts; ++p) {
      heads.push_back(at::empty_strided({shape.samples, shape.heads, shape.tokens, width},
                                        {shape.tokens * shape.heads * width, width, shape.heads * width, 1}, projected.options()));
      places[p] = heads.back().mutable_data_ptr();
    }
    Shown const shown("duoflow::split_heads", [&] {
      Moves moves{{projected, gain_0, gain_1}, heads};
      if (gain_0.defined() || gain_1.defined()) moves.written.push_back(inverse);
      return moves;
    });
    kernels::heads_forward(projected.const_data_ptr(), number_of(projected.scalar_type()), {in(gain_0), in(gain_1)},
                           static_cast<float>(factor), static_cast<float>(eps), places, out(inverse), shape, stream);
    context->save_for_backward({projected, gain_0, gain_1, inverse});
    context->set_materialize_grads(false);
    context->saved_data["factor"] = factor;
    context->saved_data["parts"] = parts;
    context->saved_data["width"] = width;
    return heads;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const &projected = saved[0], &gain_0 = saved[1], &gain_1 = saved[2], &inverse = saved[3];
    On const stream(projected);
    std::int64_t const parts = context->saved_data["parts"].toInt(), width = context->saved_data["width"].toInt();
    kernels::HeadsShape const shape = shape_of(projected, parts, width);
    kernels::HeadsGradient given[3];
    for (std::size_t p = 0; p < static_cast<std::size_t>(parts); ++p) {
      if (!gradients[p].defined()) continue;
      at::Tensor& g = gradients[p];
      if (g.stride(3) != 1) g = g.contiguous();
      given[p] = {g.const_data_ptr(), g.stride(0), g.stride(1), g.stride(2)};
    }
    // Edges are those of the defined inputs.
    std::size_t const second_edge = gain_0.defined() ? 2 : 1;
    bool const sums = (gain_0.defined() && context->needs_input_grad(1)) || (gain_1.defined() && context->needs_input_grad(second_edge));
    at::Tensor const dprojected = at::empty_like(projected);
    at::Tensor const totals = sums ? at::empty({2, width}, inverse.options()) : at::Tensor();
    at::Tensor const partials = sums ? workspace(kernels::heads_workspace(shape), inverse) : at::Tensor();
    Shown const shown("duoflow::split_heads_backward", [&] {
      Moves moves{gradients, {dprojected, totals}};
      moves.read.insert(moves.read.end(), {gain_0, gain_1});
      if (gain_0.defined() || gain_1.defined()) moves.read.insert(moves.read.end(), {projected, inverse});
      return moves;
    });
    kernels::heads_backward(projected.const_data_ptr(), number_of(projected.scalar_type()), {in(gain_0), in(gain_1)},
                            static_cast<float>(context->saved_data["factor"].toDouble()), in(inverse), given, dprojected.mutable_data_ptr(),
                            out(totals), out(partials), shape, stream);
    auto const total = [&](at::Tensor const& gain, std::int64_t p) { return sums && gain.defined() ? totals[p] : at::Tensor(); };
    return {dprojected, total(gain_0, 0), total(gain_1, 1), {}, {}, {}, {}};
  }
};

struct GatedAdd : torch::autograd::Function<GatedAdd> {
  static at::Tensor forward(AutogradContext* context, at::Tensor const& x_in, Optional const& gate_in, at::Tensor const& y_in) {
    On const stream(x_in);
    at::Tensor const x = x_in.stride(2) == 1 ? x_in : x_in.contiguous();  // the first tokens of a longer sequence are read in place
    at::Tensor const gate = contiguous(gate_in), y = y_in.contiguous(), sum = at::empty(y.sizes(), x.options());
    Shown const shown("duoflow::gated_add", [&] { return Moves{{x, gate, y}, {sum}}; });
    kernels::gated_add_forward(in(x), in(gate), y.const_data_ptr(), number_of(y.scalar_type()), out(sum),
                               {y.size(0), y.size(1), y.size(2), x.stride(0), x.stride(1)}, stream);
    if (gate.defined()) context->save_for_backward({gate, y});
    context->saved_data["type"] = y.scalar_type();
    return sum;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    at::Tensor const g = gradients[0].contiguous();
    auto const saved = context->get_saved_variables();
    if (saved.empty()) return {g, {}, g.to(context->saved_data["type"].toScalarType())};
    On const stream(g);
    at::Tensor const &gate = saved[0], &y = saved[1], dy = at::empty_like(y);
    kernels::GatedShape const shape{y.size(0), y.size(1), y.size(2)};
    bool const sums = context->needs_input_grad(1);
    at::Tensor const dgate = sums ? at::empty_like(gate) : at::Tensor();
    at::Tensor const partials = sums ? workspace(kernels::gated_add_workspace(shape), gate) : at::Tensor();
    Shown const shown("duoflow::gated_add_backward", [&] { return Moves{{g, gate, y}, {dy, dgate}}; });
    kernels::gated_add_backward(in(g), in(gate), y.const_data_ptr(), number_of(y.scalar_type()), dy.mutable_data_ptr(), out(dgate),
                                out(partials), shape, stream);
    return {g, dgate, dy};
  }
};

struct AddNorm : torch::autograd::Function<AddNorm> {
  static kernels::AddNormShape shape_of(at::Tensor const& y, at::Tensor const& gate, at::Tensor const& weight) {
    bool const each = weight.defined() && weight.dim() == 3;
    return {{y.size(0), y.size(1), y.size(2)}, each ? y.size(0) : 1, gate.defined()};
  }

  static variable_list forward(AutogradContext* context, at::Tensor const& x_in, Optional const& gate_in, at::Tensor const& y_in,
                               Optional const& weight_in, Optional const& shift_in, double eps, at::ScalarType type) {
    On const stream(x_in);
    at::Tensor const x = x_in.stride(2) == 1 ? x_in : x_in.contiguous();  // the first tokens of a longer sequence are read in place
    at::Tensor const gate = contiguous(gate_in), weight = contiguous(weight_in), shift = contiguous(shift_in), y = y_in.contiguous();
    at::Tensor const sum = at::empty(y.sizes(), x.options()), normalized = at::empty(y.sizes(), x.options().dtype(type));
    at::Tensor const moments = at::empty({y.size(0) * y.size(1), 2}, x.options());
    kernels::AddNormShape shape = shape_of(y, gate, weight);
    shape.rows.x_sample = x.stride(0);
    shape.rows.x_token = x.stride(1);
    Shown const shown("duoflow::add_norm", [&] { return Moves{{x, gate, y, weight, shift}, {sum, normalized, moments}}; });
    kernels::add_norm_forward(in(x), in(gate), y.const_data_ptr(), number_of(type), in(weight), in(shift), static_cast<float>(eps),
                              out(sum), normalized.mutable_data_ptr(), out(moments), shape, stream);
    context->save_for_backward({gate, gate.defined() ? y : at::Tensor(), sum, weight, moments});
    context->set_materialize_grads(false);
    context->saved_data["type"] = type;
    context->saved_data["shifted"] = shift.defined();
    return {sum, normalized};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const &gate = saved[0], &y = saved[1], &sum = saved[2], &weight = saved[3], &moments = saved[4];
    On const stream(sum);
    auto const type = context->saved_data["type"].toScalarType();
    at::Tensor const d_sum = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    at::Tensor const d_out = gradients[1].defined() ? gradients[1].contiguous() : at::zeros(sum.sizes(), sum.options().dtype(type));
    // Edges are those of the defined inputs.
    std::size_t const weight_edge = gate.defined() ? 3 : 2;
    bool const of_weight = weight.defined() && context->needs_input_grad(weight_edge),
               of_shift = context->saved_data["shifted"].toBool() && context->needs_input_grad(weight_edge + 1),
               of_gate = gate.defined() && context->needs_input_grad(1);
    int const sums = of_shift || of_gate ? kernels::kAddNormSums : of_weight ? 1 : 0;
    kernels::AddNormShape const shape = shape_of(sum, gate, weight);
    at::Tensor const dx = at::empty_like(sum), totals = at::empty({shape.groups(), sums, sum.size(2)}, sum.options());
    at::Tensor const partials = workspace(kernels::add_norm_workspace(shape, sums), sum);
    bool const same = !gate.defined() && type == at::kFloat;  // then dy is dx
    at::Tensor const dy = same ? dx : at::empty(sum.sizes(), sum.options().dtype(type));
    Shown const shown("duoflow::add_norm_backward", [&] {
      return Moves{{d_sum, d_out, sum, weight, moments, gate, y}, {dx, same ? at::Tensor() : dy, totals}};
    });
    kernels::add_norm_backward({in(sum), in(weight), in(moments), in(gate), gate.defined() ? y.const_data_ptr() : nullptr}, in(d_sum),
                               d_out.const_data_ptr(), number_of(type), out(dx), same ? nullptr : dy.mutable_data_ptr(), sums, out(totals),
                               out(partials), shape, stream);
    auto const total = [&](bool wanted, std::int64_t i, at::Tensor const& like) {
      if (!wanted) return at::Tensor();
      at::Tensor const of_groups = totals.select(1, i);
      return like.dim() == 3 ? of_groups.unsqueeze(1) : of_groups.sum(0);
    };
    return {dx, total(of_gate, 2, gate), dy, total(of_weight, 0, weight), total(of_shift, 1, weight), {}, {}};
  }
};

struct MeanSquareError : torch::autograd::Function<MeanSquareError> {
  static at::Tensor forward(AutogradContext* context, at::Tensor const& image_in, at::Tensor const& target_in) {
    On const stream(image_in);
    at::Tensor const image = image_in.contiguous(), target = target_in.contiguous(), errors = at::empty({image.size(0)}, image.options());
    std::int64_t const samples = image.size(0), count = image.numel() / std::max<std::int64_t>(samples, 1);
    at::Tensor const partials = workspace(kernels::mean_square_error_workspace(samples, count), image);
    Shown const shown("duoflow::mean_square_error", [&] { return Moves{{image, target}, {errors}}; });
    kernels::mean_square_error_forward(in(image), in(target), samples, count, out(errors), out(partials), stream);
    context->save_for_backward({image, target});
    return errors;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const &image = saved[0], &target = saved[1], g = gradients[0].contiguous(), dimage = at::empty_like(image);
    On const stream(image);
    Shown const shown("duoflow::mean_square_error_backward", [&] { return Moves{{image, target, g}, {dimage}}; });
    kernels::mean_square_error_backward(in(image), in(target), in(g), image.size(0), image.numel() / image.size(0), out(dimage), stream);
    return {dimage, {}};
  }
};

}  // namespace

bool has_kernels() {
  static bool const off = [] {
    char const* const word = std::getenv("DUOFLOW_CUDA_KERNELS");
    return word != nullptr && std::string_view(word) == "0";
  }();
  return !off;
}

bool takes(at::Tensor const& tensor) {
  return tensor.is_cuda() && has_kernels() && (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16);
}

at::Tensor norm(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& shift, double eps, at::ScalarType type) {
  return Norm::apply(x, if_defined(weight), if_defined(shift), eps, type);
}

std::vector<at::Tensor> split_heads(at::Tensor const& projected, at::Tensor const& first_gain, at::Tensor const& second_gain, double factor,
                                    double eps, std::int64_t parts, std::int64_t d_head) {
  return SplitHeads::apply(projected, if_defined(first_gain), if_defined(second_gain), factor, eps, parts, d_head);
}

at::Tensor gated_add(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y) { return GatedAdd::apply(x, if_defined(gate), y); }

SumAndNorm add_norm(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y, NormOf const& of) {
  auto const both = AddNorm::apply(x, if_defined(gate), y, if_defined(of.weight), if_defined(of.shift), of.eps, of.type);
  return {both[0], both[1]};
}

at::Tensor gelu(at::Tensor const& x_in) {
  On const stream(x_in);
  at::Tensor const x = x_in.contiguous(), y = at::empty_like(x);
  Shown const shown("duoflow::gelu", [&] { return Moves{{x}, {y}}; });
  kernels::gelu_forward(x.const_data_ptr(), number_of(x.scalar_type()), y.mutable_data_ptr(), x.numel(), stream);
  return y;
}

void gelu_back(at::Tensor const& x, at::Tensor const& g, at::Tensor const& y) {
  On const stream(x);
  kernels::gelu_backward(x.const_data_ptr(), g.mutable_data_ptr(), number_of(x.scalar_type()), y.defined() ? y.mutable_data_ptr() : nullptr,
                         x.numel(), stream);
}

at::Tensor mean_square_error(at::Tensor const& image, at::Tensor const& target) { return MeanSquareError::apply(image, target); }

at::Tensor pluecker_rays(at::Tensor const& c2w_in, at::Tensor const& fxfycxcy_in, std::int64_t height, std::int64_t width) {
  On const stream(c2w_in);
  at::Tensor const c2w = c2w_in.contiguous(), fxfycxcy = fxfycxcy_in.contiguous();
  at::Tensor const rays = at::empty({c2w.size(0), c2w.size(1), 6, height, width}, c2w.options());
  Shown const shown("duoflow::pluecker_rays", [&] { return Moves{{c2w, fxfycxcy}, {rays}}; });
  kernels::pluecker_rays(in(c2w), in(fxfycxcy), c2w.size(0) * c2w.size(1), height, width, out(rays), stream);
  return rays;
}

}  // namespace duoflow::model::cuda
