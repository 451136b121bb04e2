#include "model/fused/heads.h"

#include <cstring>
#include <optional>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/fused/cuda/launch.h"
#include "model/fused/cuda/operators.h"
#include "model/fused/row_blocks.h"
#include "model/fused/rows.h"
#include "model/fused/shown.h"

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Optional = std::optional<at::Tensor>;  // an input of a Function is a defined tensor or none

constexpr double kRmsNormEps = 1e-5;

char* at_element(at::Tensor const& t, std::int64_t element) {
  return static_cast<char*>(t.data_ptr()) + element * static_cast<std::int64_t>(t.element_size());
}

// Where what lies: a row is a token of a sample, in the projection with its parts one after another.
struct Shape {
  std::int64_t samples, tokens, parts, heads, width;
  Shape(at::Tensor const& projected, std::int64_t parts_in, std::int64_t d_head)
      : samples(projected.size(0)),
        tokens(projected.size(1)),
        parts(parts_in),
        heads(projected.size(2) / parts_in / d_head),
        width(d_head) {}
  std::int64_t part() const { return heads * width; }
  std::int64_t in_row(std::int64_t row, std::int64_t p) const { return (row * parts + p) * part(); }
  std::int64_t in_part(std::int64_t row, std::int64_t head) const {
    return ((row / tokens * heads + head) * tokens + row % tokens) * width;
  }
  static std::size_t bytes_of(std::int64_t numbers, at::Tensor const& t) { return static_cast<std::size_t>(numbers) * t.element_size(); }
  // One part of a row as it is, to or from the tensor of its heads.
  void heads_from(char const* row_part, std::int64_t row, at::Tensor const& to) const {
    auto const bytes = bytes_of(width, to);
    for (std::int64_t h = 0; h < heads; ++h, row_part += bytes) std::memcpy(at_element(to, in_part(row, h)), row_part, bytes);
  }
  void heads_into(at::Tensor const& from, std::int64_t row, char* row_part) const {
    auto const bytes = bytes_of(width, from);
    for (std::int64_t h = 0; h < heads; ++h, row_part += bytes) std::memcpy(row_part, at_element(from, in_part(row, h)), bytes);
  }
};

struct SplitHeads : torch::autograd::Function<SplitHeads> {
  // gains: of the first parts, none for no norm; factor: on the first part.
  static variable_list forward(AutogradContext* context, at::Tensor const& projected_in, Optional const& first_gain,
                               Optional const& second_gain, double factor, std::int64_t parts, std::int64_t d_head) {
    at::Tensor const projected = projected_in.contiguous();
    at::Tensor const gain_0 = first_gain.value_or(at::Tensor()), gain_1 = second_gain.value_or(at::Tensor());
    Shape const s(projected, parts, d_head);
    auto const type = projected.scalar_type();
    at::Tensor const inverse = at::empty({s.samples * s.tokens, 2, s.heads}, projected.options().dtype(at::kFloat));
    variable_list out;
    for (std::int64_t p = 0; p < parts; ++p) out.push_back(at::empty({s.samples, s.heads, s.tokens, s.width}, projected.options()));
    at::Tensor const* const gains[] = {&gain_0, &gain_1};
    Shown const shown("duoflow::split_heads", [&] {
      Moves moves{{projected, gain_0, gain_1}, out};
      if (gain_0.defined() || gain_1.defined()) moves.written.push_back(inverse);
      return moves;
    });
    for_row_blocks(1, s.samples * s.tokens, 0, nullptr, [&](std::int64_t, std::int64_t first, std::int64_t end, float*) {
      float *const in = rows::room<1>(s.part()), *const result = rows::room<2>(s.part());
      for (std::int64_t row = first; row < end; ++row)
        for (std::int64_t p = 0; p < parts; ++p) {
          at::Tensor const& to = out[static_cast<std::size_t>(p)];
          float const of_part = p == 0 ? static_cast<float>(factor) : 1;
          bool const normed = p < 2 && gains[p]->defined();
          if (!normed && of_part == 1) {
            s.heads_from(at_element(projected, s.in_row(row, p)), row, to);
            continue;
          }
          rows::load(at_element(projected, s.in_row(row, p)), type, in, s.part());
          if (normed)
            rows::rms_of_heads(in, gains[p]->const_data_ptr<float>(), of_part, static_cast<float>(kRmsNormEps), result,
                               inverse.mutable_data_ptr<float>() + (row * 2 + p) * s.heads, s.heads, s.width);
          else
            rows::scale(in, of_part, result, s.part());
          for (std::int64_t h = 0; h < s.heads; ++h) rows::store(result + h * s.width, type, at_element(to, s.in_part(row, h)), s.width);
        }
    });
    context->save_for_backward({projected, gain_0, gain_1, inverse});
    context->saved_data["factor"] = factor;
    context->saved_data["parts"] = parts;
    context->saved_data["d_head"] = d_head;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const &projected = saved[0], &inverse = saved[3];
    double const factor = context->saved_data["factor"].toDouble();
    Shape const s(projected, context->saved_data["parts"].toInt(), context->saved_data["d_head"].toInt());
    auto const type = projected.scalar_type();
    at::Tensor const* const gains[] = {&saved[1], &saved[2]};
    bool const sums = (gains[0]->defined() && context->needs_input_grad(1)) || (gains[1]->defined() && context->needs_input_grad(2));
    at::Tensor const dprojected = at::empty_like(projected), totals = at::zeros({2, s.width}, inverse.options());
    for (at::Tensor& gradient : gradients)
      if (gradient.defined()) gradient = gradient.contiguous();
    Shown const shown("duoflow::split_heads_backward", [&] {
      Moves moves{gradients, {dprojected, sums ? totals : at::Tensor()}};
      moves.read.insert(moves.read.end(), {*gains[0], *gains[1]});
      if (gains[0]->defined() || gains[1]->defined()) moves.read.insert(moves.read.end(), {projected, inverse});
      return moves;
    });
    for_row_blocks(1, s.samples * s.tokens, 2 * s.width, sums ? totals.mutable_data_ptr<float>() : nullptr,
                   [&](std::int64_t, std::int64_t first, std::int64_t end, float* sum) {
      float *const in = rows::room<1>(s.part()), *const dy = rows::room<2>(s.part()), *const dx = rows::room<3>(s.part());
      for (std::int64_t row = first; row < end; ++row)
        for (std::int64_t p = 0; p < s.parts; ++p) {
          at::Tensor const& gradient = gradients[static_cast<std::size_t>(p)];
          char* const to = at_element(dprojected, s.in_row(row, p));
          float const of_part = p == 0 ? static_cast<float>(factor) : 1;
          bool const normed = p < 2 && gains[p]->defined();
          if (!gradient.defined()) {
            std::memset(to, 0, s.bytes_of(s.part(), projected));
            continue;
          }
          if (!normed && of_part == 1) {
            s.heads_into(gradient, row, to);
            continue;
          }
          for (std::int64_t h = 0; h < s.heads; ++h) rows::load(at_element(gradient, s.in_part(row, h)), type, dy + h * s.width, s.width);
          if (normed) {
            rows::load(at_element(projected, s.in_row(row, p)), type, in, s.part());
            rows::rms_of_heads_back(in, inverse.const_data_ptr<float>() + (row * 2 + p) * s.heads, gains[p]->const_data_ptr<float>(),
                                    of_part, dy, dx, sum == nullptr ? nullptr : sum + p * s.width, s.heads, s.width);
          } else {
            rows::scale(dy, of_part, dx, s.part());
          }
          rows::store(dx, type, to, s.part());
        }
    });
    auto const gain_gradient = [&](std::int64_t p) { return sums && gains[p]->defined() ? totals[p] : at::Tensor(); };
    return {dprojected, gain_gradient(0), gain_gradient(1), {}, {}, {}};
  }
};

at::Tensor head_norm(at::Tensor const& x_BHLC, at::Tensor const& gain_C, double factor) {
  if (!gain_C.defined()) return factor == 1 ? x_BHLC : x_BHLC * factor;
  at::Tensor const x = x_BHLC.to(at::kFloat, false, false, at::MemoryFormat::Contiguous);
  at::Tensor const inverse = at::rsqrt(at::mean(x * x, -1, true) + kRmsNormEps);
  return (x * inverse * (gain_C * factor)).to(x_BHLC.scalar_type());
}

std::int64_t parts_of(HeadsOf const& of) { return (of.queries ? 1 : 0) + (of.keys_and_values ? 2 : 0); }

}  // namespace

std::vector<at::Tensor> split_heads_by_aten(at::Tensor const& projected, std::int64_t d_head, HeadsOf const& of) {
  std::vector<at::Tensor> out;
  for (at::Tensor const& part : projected.chunk(parts_of(of), 2)) out.push_back(part.unflatten(-1, {-1, d_head}).transpose(1, 2));
  if (of.queries) out[0] = head_norm(out[0], of.query_gain, of.query_factor);
  if (of.keys_and_values) out[out.size() - 2] = head_norm(out[out.size() - 2], of.key_gain, 1);
  return out;
}

std::vector<at::Tensor> split_heads(at::Tensor const& projected, std::int64_t d_head, HeadsOf const& of) {
  bool const by_kernel = cuda::takes(projected) && d_head <= kernels::kLargestHead;
  if (!projected.is_cpu() && !by_kernel) return split_heads_by_aten(projected, d_head, of);
  at::Tensor const& first = of.queries ? of.query_gain : of.key_gain;
  at::Tensor const second = of.queries && of.keys_and_values ? of.key_gain : at::Tensor();
  if (by_kernel)
    return cuda::split_heads(projected, first, second, of.queries ? of.query_factor : 1, kRmsNormEps, parts_of(of), d_head);
  auto const if_defined = [](at::Tensor const& t) { return t.defined() ? Optional(t) : std::nullopt; };
  return SplitHeads::apply(projected, if_defined(first), if_defined(second), of.queries ? of.query_factor : 1, parts_of(of), d_head);
}

}  // namespace duoflow::model
