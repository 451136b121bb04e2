#include "model/fused/attend.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor sequences(at::Tensor const& x_BHLC) { return x_BHLC.flatten(0, 1); }
at::Tensor transposed(at::Tensor const& x) { return x.transpose(1, 2); }

// body(some), for a few heads at a time: what is made of their scores is still in a cache when it is read. some(x): theirs of x.
template <class Body>
void by_heads(at::Tensor const& q, at::Tensor const& k, Body const& body) {
  constexpr std::int64_t kScoreBytes = std::int64_t{16} << 20;
  auto const bytes_of_head = q.size(1) * k.size(1) * static_cast<std::int64_t>(q.element_size());
  std::int64_t const heads = q.size(0), at_once = std::max<std::int64_t>(kScoreBytes / std::max<std::int64_t>(bytes_of_head, 1), 1);
  for (std::int64_t first = 0; first < heads; first += at_once)
    body([&](at::Tensor const& x) { return x.narrow(0, first, std::min(at_once, heads - first)); });
}

// probabilities: kept there; undefined: not at all.
at::Tensor attend_forward(at::Tensor const& q_BHKC, at::Tensor const& k_BHLC, at::Tensor const& v_BHLC, at::Tensor const& probabilities) {
  at::Tensor const q = sequences(q_BHKC), k = sequences(k_BHLC), v = sequences(v_BHLC);
  at::Tensor out;
  by_heads(q, k, [&](auto const& some) {
    at::Tensor p = probabilities.defined() ? some(probabilities) : at::empty({some(q).size(0), q.size(1), k.size(1)}, q.options());
    at::bmm_out(p, some(q), transposed(some(k)));
    at::_softmax_out(p, p, -1, false);  // a row is read before it is written, here and in the backward
    if (!out.defined()) out = at::empty_like(q);
    at::Tensor to = some(out);
    at::bmm_out(to, p, some(v));
  });
  return out.view(q_BHKC.sizes()).transpose(1, 2).flatten(2);
}

struct Attend : torch::autograd::Function<Attend> {
  static at::Tensor forward(AutogradContext* context, at::Tensor const& q, at::Tensor const& k, at::Tensor const& v) {
    at::Tensor const probabilities = at::empty({q.size(0) * q.size(1), q.size(2), k.size(2)}, q.options());
    context->save_for_backward({q, k, v, probabilities});
    return attend_forward(q, k, v, probabilities);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto const saved = context->get_saved_variables();
    at::Tensor const q = sequences(saved[0]), k = sequences(saved[1]), v = sequences(saved[2]), &probabilities = saved[3];
    auto const heads = saved[0].size(1);
    at::Tensor const g = gradients[0].unflatten(2, {heads, -1}).transpose(1, 2).contiguous().flatten(0, 1);
    at::Tensor dq, dk, dv;
    by_heads(q, k, [&](auto const& some) {
      at::Tensor const p = some(probabilities);
      at::Tensor d_scores = at::bmm(some(g), transposed(some(v)));
      at::_softmax_backward_data_out(d_scores, d_scores, p, -1, p.scalar_type());
      if (!dq.defined()) dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
      at::Tensor dq_some = some(dq), dk_some = some(dk), dv_some = some(dv);
      at::bmm_out(dq_some, d_scores, some(k));
      at::bmm_out(dk_some, transposed(d_scores), some(q));
      at::bmm_out(dv_some, transposed(p), some(g));
    });
    return {dq.view(saved[0].sizes()), dk.view(saved[1].sizes()), dv.view(saved[2].sizes())};
  }
};

}  // namespace

at::Tensor attend(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v) {
  bool const graph = at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
  return graph ? Attend::apply(q, k, v) : attend_forward(q, k, v, {});
}

}  // namespace duoflow::model
