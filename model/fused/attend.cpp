#include "model/fused/attend.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor sequences(at::Tensor const& x_BHLC) { return x_BHLC.flatten(0, 1); }
at::Tensor transposed(at::Tensor const& x) { return x.transpose(1, 2); }

struct Attend : torch::autograd::Function<Attend> {
  static at::Tensor forward(AutogradContext* context, at::Tensor const& q, at::Tensor const& k, at::Tensor const& v) {
    at::Tensor const probabilities = at::softmax(at::bmm(sequences(q), transposed(sequences(k))), -1);
    context->save_for_backward({q, k, v, probabilities});
    return at::bmm(probabilities, sequences(v)).view(q.sizes()).transpose(1, 2).flatten(2);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const q = sequences(saved[0]), k = sequences(saved[1]), v = sequences(saved[2]), &p = saved[3];
    auto const heads = saved[0].size(1);
    at::Tensor const g = gradients[0].unflatten(2, {heads, -1}).transpose(1, 2).contiguous().flatten(0, 1);
    at::Tensor const d_scores = at::_softmax_backward_data(at::bmm(g, transposed(v)), p, -1, p.scalar_type());
    auto const to_heads = [&](at::Tensor const& x, at::Tensor const& like) { return x.view(like.sizes()); };
    return {to_heads(at::bmm(d_scores, k), saved[0]), to_heads(at::bmm(transposed(d_scores), q), saved[1]),
            to_heads(at::bmm(transposed(p), g), saved[2])};
  }
};

}  // namespace

at::Tensor attend(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v) { return Attend::apply(q, k, v); }

}  // namespace duoflow::model
