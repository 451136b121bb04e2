#include "launch/profile/operator_counts.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "launch/profile/stages.h"
#include "model/fused/add_norm.h"
#include "model/fused/attend.h"
#include "model/fused/gated_add.h"
#include "model/fused/heads.h"
#include "model/fused/mlp.h"
#include "model/fused/norm.h"
#include "model/recompute.h"

namespace duoflow::launch {
namespace {

constexpr double kFloat = 4, kBf16 = 2;
constexpr std::int64_t kB = 3, kL = 5, kD = 8, kC = 4;  // samples, tokens, width, width of a head

// Of what `work` does, outside any stage.
std::map<std::string, StageCounts> counted(std::function<void()> const& work) {
  OperatorCounts counts;
  work();
  counts.stop();
  return counts.operators_of("other");
}

StageCounts sum_of(std::map<std::string, StageCounts> const& operators) {
  StageCounts sum;
  for (auto const& [name, one] : operators) sum += one;
  return sum;
}

at::Tensor leaf(at::IntArrayRef shape, at::ScalarType type = at::kFloat) { return at::randn(shape).to(type).requires_grad_(true); }

TEST(OperatorCountsTest, AttentionsProductsCountOnceHoweverItIsMade) {
  at::Tensor const q = at::randn({kB, 2, kL, kC}), k = at::randn({kB, 2, 7, kC}), v = at::randn({kB, 2, 7, kC});
  double const forward = 2 * 2 * 2 * kB * kL * 7 * kC;  // two products; two heads; a multiply-add is two
  auto const as = [&](std::function<at::Tensor()> const& attention) { return sum_of(counted([&] { attention(); })).flops; };
  EXPECT_EQ(as([&] { return std::get<0>(at::_scaled_dot_product_attention_math(q, k, v)); }), forward) << "by two products";
  EXPECT_EQ(as([&] { return at::scaled_dot_product_attention(q, k, v); }), forward) << "by one kernel";
  EXPECT_EQ(as([&] { return model::attend(q, k, v); }), forward) << "ours";
}

TEST(OperatorCountsTest, WhatTheBackwardOfAttentionMakesAgainIsNotUseful) {
  at::Tensor const q = leaf({kB, 2, kL, kC}), k = leaf({kB, 2, 7, kC}), v = leaf({kB, 2, 7, kC});
  double const product = 2 * 2 * kB * kL * 7 * kC;
  auto const backward_of = [&](at::Tensor const& out) {
    return sum_of(counted([&] { torch::autograd::backward({out}, {at::ones_like(out)}); }));
  };
  auto const kept = backward_of(model::attend(q, k, v)), made_again = backward_of(at::scaled_dot_product_attention(q, k, v));
  EXPECT_EQ(kept.flops, 4 * product);
  EXPECT_EQ(kept.useful, 4 * product);
  EXPECT_EQ(made_again.flops, 5 * product);
  EXPECT_EQ(made_again.useful, 4 * product);
}

TEST(OperatorCountsTest, BlocksThatRunAgainRanButAreNotUseful) {
  at::Tensor const x = leaf({kL, kD}), w = leaf({kD, kD});
  at::Tensor const out = model::recompute_in_backward([](auto const& in) { return at::mm(in[0], in[1]); }, {x, w});
  StageTimeline timeline(at::kCPU);
  StageObserver const observer(timeline);
  timeline.begin_step();
  OperatorCounts counts;
  torch::autograd::backward({out}, {at::ones_like(out)});
  counts.stop();
  double const product = 2.0 * kL * kD * kD;
  EXPECT_EQ(counts.of("blocks again").flops, product);
  EXPECT_EQ(counts.sum().flops, 3 * product);
  EXPECT_EQ(counts.sum().useful, 2 * product);
}

TEST(OperatorCountsTest, BytesAreThoseReadAndWritten) {
  at::Tensor const x = at::randn({kL, kD}), y = at::randn({kL, kD}), out = at::empty({kL, kD});
  double const one = kFloat * kL * kD;
  auto const bytes = [](std::function<void()> const& work) { return sum_of(counted(work)).bytes; };
  EXPECT_EQ(bytes([&] { at::add(x, y); }), 3 * one);
  EXPECT_EQ(bytes([&] { x.clone().add_(y); }), 2 * one + 3 * one) << "a copy, and in place";
  EXPECT_EQ(bytes([&] { at::Tensor to = out; at::mul_out(to, x, y); }), 3 * one) << "where it goes to is not read";
  EXPECT_EQ(bytes([&] { out.copy_(x); }), 2 * one);
  EXPECT_EQ(bytes([&] { at::zeros({kL, kD}); }), one);
  EXPECT_EQ(bytes([&] { x.narrow(0, 1, 2).view({2, kD}).transpose(0, 1).contiguous().detach(); }), 2 * 2 * kFloat * kD) << "views move nothing";
  EXPECT_EQ(bytes([&] { at::empty_like(x).resize_({kD}); }), 0);
}

// Forward and backward of the operators whose loops no dispatcher sees: x fp32, what goes into products bf16.
TEST(OperatorCountsTest, OperatorsOfOurOwnSayWhatTheyMove) {
  double const x_bytes = kFloat * kB * kL * kD, y_bytes = kBf16 * kB * kL * kD, moments = 2 * kFloat * kB * kL;
  double const of_width = kFloat * kD, of_samples = kFloat * kB * kD;
  at::Tensor const x = leaf({kB, kL, kD}), y = leaf({kB, kL, kD}, at::kBFloat16), gain = leaf({kD}), gate = leaf({kB, 1, kD});
  at::Tensor const projected = leaf({kB, kL, 3 * kD}, at::kBFloat16), query_gain = leaf({kC}), key_gain = leaf({kC});
  at::Tensor const up = leaf({4 * kD, kD}, at::kBFloat16), down = leaf({kD, 4 * kD}, at::kBFloat16);
  auto const operators = counted([&] {
    auto const walk_back = [](at::Tensor const& a, at::Tensor const& b = {}) {
      at::Tensor const sum = a.sum() + (b.defined() ? b.sum().to(a.scalar_type()) : at::zeros({}, a.options()));
      torch::autograd::backward({sum});
    };
    walk_back(model::norm(x, gain, {}, 1e-5, at::kBFloat16));
    walk_back(model::gated_add(x, gate, y));
    auto const both = model::add_norm(x, gate, y, {gain, {}, 1e-5, at::kBFloat16});
    walk_back(both.sum, both.normalized);
    auto const heads = model::split_heads(projected, kC, {true, true, query_gain, key_gain, 1});
    walk_back(heads[0] + heads[1], heads[2]);
    walk_back(model::mlp(y, up, down));
  });
  auto const expect = [&](char const* name, double bytes) {
    ASSERT_TRUE(operators.contains(name)) << name;
    EXPECT_EQ(operators.at(name).operators, 1) << name;
    EXPECT_EQ(operators.at(name).bytes, bytes) << name;
  };
  expect("duoflow::norm", x_bytes + of_width + y_bytes + moments);
  expect("duoflow::norm_backward", x_bytes + of_width + moments + y_bytes + x_bytes + 2 * of_width);
  expect("duoflow::gated_add", x_bytes + of_samples + y_bytes + x_bytes);
  expect("duoflow::gated_add_backward", x_bytes + of_samples + y_bytes + y_bytes + of_samples);
  expect("duoflow::add_norm", x_bytes + of_samples + y_bytes + of_width + x_bytes + y_bytes + moments);
  expect("duoflow::add_norm_backward",
         x_bytes + y_bytes + x_bytes + of_width + moments + of_samples + y_bytes + x_bytes + y_bytes + 3 * of_samples);
  double const gains = 2 * kFloat * kC, inverse = kFloat * kB * kL * 2 * (kD / kC);
  expect("duoflow::split_heads", 3 * y_bytes + gains + 3 * y_bytes + inverse);
  expect("duoflow::split_heads_backward", 3 * y_bytes + gains + 3 * y_bytes + inverse + 3 * y_bytes + gains);
  expect("duoflow::gelu_backward", 4 * (2 * y_bytes + 2 * y_bytes));
}

}  // namespace
}  // namespace duoflow::launch
