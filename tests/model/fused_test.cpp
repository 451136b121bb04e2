// The fused operators against the same formulas in fp64: results and gradients, in fp32 and bf16, for rows and widths
// that fill no vector and no block; and the same bits with any number of threads.

#include <cmath>
#include <array>
#include <functional>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/fused/add_norm.h"
#include "model/fused/attend.h"
#include "model/fused/gated_add.h"
#include "model/fused/heads.h"
#include "model/fused/mlp.h"
#include "model/fused/norm.h"
#include "model/fused/rows.h"

namespace duoflow::model {
namespace {

using Tensors = std::vector<at::Tensor>;
using Operator = std::function<Tensors(Tensors const&)>;

at::Tensor random(at::IntArrayRef shape, double mean = 0) { return at::randn(shape) + mean; }

// Of `inputs` as leaves: the operator's results and the gradients of a fixed weighted sum of them.
struct Both {
  Tensors results, gradients;
};
Both both(Operator const& op, Tensors inputs) {
  Tensors wanted;
  for (auto& input : inputs) {
    if (!input.defined()) continue;
    input = input.detach().clone().requires_grad_(true);
    wanted.push_back(input);
  }
  Both out;
  out.results = op(inputs);
  Tensors roots;
  for (auto const& result : out.results) {
    auto const n = result.numel();
    roots.push_back(at::sin(at::arange(n, at::kDouble)).reshape(result.sizes()).to(at::kBFloat16).to(result.scalar_type()));
  }
  out.gradients = torch::autograd::grad(out.results, wanted, roots);
  return out;
}

double distance(at::Tensor const& a, at::Tensor const& b) {
  auto const x = a.to(at::kDouble), y = b.to(at::kDouble);
  return ((x - y).abs().max() / y.abs().max()).item<double>();
}

void expect_near(Operator const& fused, Operator const& exact, Tensors const& inputs, double tolerance) {
  Tensors wide;
  for (auto const& input : inputs) wide.push_back(input.defined() ? input.to(at::kDouble) : input);
  auto const ours = both(fused, inputs), theirs = both(exact, wide);
  for (std::size_t i = 0; i < ours.results.size(); ++i) EXPECT_LT(distance(ours.results[i], theirs.results[i]), tolerance) << "result " << i;
  for (std::size_t i = 0; i < ours.gradients.size(); ++i)
    EXPECT_LT(distance(ours.gradients[i], theirs.gradients[i]), tolerance) << "gradient " << i;
}

double tolerance(at::ScalarType type) { return type == at::kBFloat16 ? 8e-3 : 2e-6; }  // two roundings of 2^-8

class FusedTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { at::manual_seed(3); }
};
INSTANTIATE_TEST_SUITE_P(Types, FusedTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](auto const& test) { return test.param == at::kFloat ? "fp32" : "bf16"; });

TEST_P(FusedTest, NormIsThatOfFp64) {
  auto const type = GetParam();
  for (std::int64_t const width : {7, 64, 130})
    for (int const kind : {0, 1, 2, 3}) {  // none, a weight for all, one for each sample, with a shift
      at::Tensor const weight = kind == 0 ? at::Tensor() : kind == 1 ? random({width}, 1) : random({3, 1, width}, 1);
      at::Tensor const shift = kind == 3 ? random({3, 1, width}) : at::Tensor();
      auto const exact = [](Tensors const& in) -> Tensors {
        auto y = at::layer_norm(in[0], {in[0].size(-1)}, {}, {}, 1e-5);
        if (in[1].defined()) y = y * in[1];
        return {in[2].defined() ? y + in[2] : y};
      };
      auto const fused = [&](Tensors const& in) -> Tensors { return {norm(in[0], in[1], in[2], 1e-5, type)}; };
      expect_near(fused, exact, {random({3, 70, width}, 5), weight, shift}, tolerance(type));
    }
}

TEST_P(FusedTest, HeadsAreThoseOfFp64) {
  auto const type = GetParam();
  std::int64_t const width = 24, heads = 3;
  for (auto const& [queries, keys] : {std::pair(true, true), std::pair(true, false), std::pair(false, true)})
    for (bool const normed : {true, false}) {
      std::int64_t const parts = (queries ? 1 : 0) + (keys ? 2 : 0);
      at::Tensor const query_gain = normed && queries ? random({width}, 1) : at::Tensor(), key_gain = normed && keys ? random({width}, 1) : at::Tensor();
      auto const exact = [&, queries = queries, keys = keys](Tensors const& in) {
        Tensors out;
        for (auto const& part : in[0].chunk(parts, 2)) out.push_back(part.unflatten(-1, {-1, width}).transpose(1, 2));
        auto const rms = [](at::Tensor const& x, at::Tensor const& gain) {
          return gain.defined() ? x * at::rsqrt((x * x).mean(-1, true) + 1e-5) * gain : x;
        };
        if (queries) out[0] = rms(out[0], in[1]) * 0.3;
        if (keys) out[out.size() - 2] = rms(out[out.size() - 2], in[2]);
        return out;
      };
      auto const fused = [&, queries = queries, keys = keys](Tensors const& in) {
        return split_heads(in[0], width, {queries, keys, in[1], in[2], 0.3});
      };
      expect_near(fused, exact, {random({2, 67, parts * heads * width}).to(type), query_gain, key_gain}, tolerance(type));
    }
}

TEST_P(FusedTest, GatedSumsAreThoseOfFp64AlsoOfTheFirstTokensOfMore) {
  auto const type = GetParam();
  auto const exact = [](Tensors const& in) -> Tensors { return {in[0].narrow(1, 0, 70) + in[1] * in[2]}; };
  auto const fused = [](Tensors const& in) -> Tensors { return {gated_add(in[0].narrow(1, 0, 70), in[1], in[2])}; };
  expect_near(fused, exact, {random({2, 90, 33}), random({2, 1, 33}), random({2, 70, 33}).to(type)}, tolerance(type));
}

TEST_P(FusedTest, ASumAndItsNormAreThoseOfFp64) {
  auto const type = GetParam();
  for (int const kind : {0, 1, 2, 3}) {  // no gate: no weight, a weight for all; a gate: a weight for each sample, with a shift
    bool const gated = kind > 1;
    at::Tensor const gate = gated ? random({2, 1, 33}) : at::Tensor(), shift = kind == 3 ? random({2, 1, 33}) : at::Tensor();
    at::Tensor const weight = kind == 0 ? at::Tensor() : gated ? random({2, 1, 33}, 1) : random({33}, 1);
    auto const exact = [&](Tensors const& in) -> Tensors {
      at::Tensor const x = in[0].narrow(1, 0, 70);
      at::Tensor const sum = in[1].defined() ? x + in[1] * in[2] : x + in[2];
      at::Tensor y = at::layer_norm(sum, {33}, {}, {}, 1e-5);
      if (in[3].defined()) y = y * in[3];
      return {sum, in[4].defined() ? y + in[4] : y};
    };
    auto const fused = [&](Tensors const& in) -> Tensors {
      auto const both = add_norm(in[0].narrow(1, 0, 70), in[1], in[2], {in[3], in[4], 1e-5, type});
      return {both.sum, both.normalized};
    };
    expect_near(fused, exact, {random({2, 90, 33}, 2), gate, random({2, 70, 33}).to(type), weight, shift}, tolerance(type));
  }
}

TEST_P(FusedTest, AttentionIsThatOfFp64) {
  auto const type = GetParam();
  auto const exact = [](Tensors const& in) -> Tensors {
    return {at::matmul(at::softmax(at::matmul(in[0], in[1].transpose(-2, -1)), -1), in[2]).transpose(1, 2).flatten(2)};
  };
  auto const fused = [](Tensors const& in) -> Tensors { return {attend(in[0], in[1], in[2])}; };
  // Fewer queries than keys; bf16 rounds scores and probabilities as well. The second: more scores than are worked through at once,
  // two of five heads then in fp32, four in bf16, and the rest.
  for (auto const& [b, h, k, l, c] : {std::array<std::int64_t, 5>{2, 3, 20, 37, 16}, {1, 5, 1300, 1400, 8}}) {
    Tensors const in{random({b, h, k, c}).to(type) * 0.25, random({b, h, l, c}).to(type), random({b, h, l, c}).to(type)};
    expect_near(fused, exact, in, 2 * tolerance(type));
    EXPECT_TRUE(at::equal(fused(in)[0], both(fused, in).results[0]));  // without a graph
  }
}

TEST_P(FusedTest, AnMlpIsThatOfFp64) {
  auto const type = GetParam();
  auto const exact = [](Tensors const& in) -> Tensors { return {mlp_by_aten(in[0], in[1], in[2])}; };
  auto const fused = [](Tensors const& in) -> Tensors { return {mlp(in[0], in[1], in[2])}; };
  // More numbers in the hidden layer than one block of its backward, and no whole block of them.
  at::Tensor const x = random({3, 71, 24}).to(type), up = (random({96, 24}) / 4).to(type), down = (random({24, 96}) / 9).to(type);
  expect_near(fused, exact, {x, up, down}, 2 * tolerance(type));  // bf16 rounds the hidden layer as well
}

TEST_P(FusedTest, AnMlpWalksBackToWhatLearnsAlone) {
  auto const type = GetParam();
  at::Tensor const x = random({5, 24}).to(type), up = random({96, 24}).to(type), down = random({24, 96}).to(type);
  Both const whole = both([](Tensors const& in) -> Tensors { return {mlp(in[0], in[1], in[2])}; }, {x, up, down});
  auto const alone = [&](std::size_t learns) {
    Tensors in{x, up, down};
    return both([&](Tensors const& one) -> Tensors {
             in[learns] = one[0];
             return {mlp(in[0], in[1], in[2])};
           },
                {in[learns]})
        .gradients[0];
  };
  for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(distance(alone(i), whole.gradients[i]), tolerance(type)) << i;
}

// The loops of the CPU, number by number: against fp64, relative to the larger of the number and 1 (slopes are up to 1.13).
TEST(RowsTest, GeluAndItsSlopeAreThoseOfFp64FarOutAsWell) {
  at::Tensor const x = at::cat({at::linspace(-12, 12, 4001), at::tensor({0.0F, -0.0F, -40.0F, 40.0F, -1e4F, 1e4F, 1e-30F})});
  at::Tensor g = at::ones_like(x), y = at::empty_like(x);
  rows::gelu_back(at::kFloat, x.const_data_ptr(), g.mutable_data_ptr(), y.mutable_data_ptr(), x.numel());
  at::Tensor const wide = x.to(at::kDouble), one = at::ones_like(wide);
  auto const error = [](at::Tensor const& a, at::Tensor const& b) { return ((a - b).abs() / b.abs().clamp_min(1)).max().item<double>(); };
  EXPECT_LT(error(y, at::gelu(wide)), 3e-7);
  EXPECT_LT(error(g, at::gelu_backward(one, wide)), 3e-7);
  at::Tensor const alone = at::ones_like(x);
  rows::gelu_back(at::kFloat, x.const_data_ptr(), alone.mutable_data_ptr(), nullptr, x.numel());
  EXPECT_LT(error(alone, g), 1e-7);
  at::Tensor const bad = at::full({20}, std::nan(""), at::kFloat);
  rows::gelu_back(at::kFloat, bad.const_data_ptr(), g.mutable_data_ptr(), y.mutable_data_ptr(), 20);
  // In bf16 the same numbers, rounded once.
  at::Tensor const x_16 = x.to(at::kBFloat16), g_16 = at::full_like(x_16, 0.75), y_16 = at::empty_like(x_16), g_32 = at::full_like(x, 0.75), y_32 = at::empty_like(x);
  rows::gelu_back(at::kBFloat16, x_16.const_data_ptr(), g_16.mutable_data_ptr(), y_16.mutable_data_ptr(), x.numel());
  rows::gelu_back(at::kFloat, x_16.to(at::kFloat).const_data_ptr(), g_32.mutable_data_ptr(), y_32.mutable_data_ptr(), x.numel());
  EXPECT_TRUE(at::equal(g_16, g_32.to(at::kBFloat16)) && at::equal(y_16, y_32.to(at::kBFloat16)));
  EXPECT_TRUE(y.narrow(0, 0, 20).isnan().all().item<bool>() && g.narrow(0, 0, 20).isnan().all().item<bool>());
}

TEST_P(FusedTest, SumsWithoutAGateAreThoseOfFp64) {
  auto const type = GetParam();
  auto const exact = [](Tensors const& in) -> Tensors { return {in[0].narrow(1, 0, 70) + in[1]}; };
  auto const fused = [](Tensors const& in) -> Tensors { return {gated_add(in[0].narrow(1, 0, 70), {}, in[1])}; };
  expect_near(fused, exact, {random({2, 90, 33}), random({2, 70, 33}).to(type)}, tolerance(type));
}

TEST_P(FusedTest, AgreeWithAtenWhichOtherDevicesUse) {
  auto const type = GetParam();
  auto const x = random({2, 70, 48}, 1), weight = random({2, 1, 48}, 1), shift = random({2, 1, 48}), gain = random({16}, 1);
  EXPECT_LT(distance(norm(x, weight, shift, 1e-5, type), norm_by_aten(x, weight, shift, 1e-5, type)), tolerance(type));
  EXPECT_LT(distance(gated_add(x, weight, shift.expand_as(x).to(type)), gated_add_by_aten(x, weight, shift.expand_as(x).to(type))), tolerance(type));
  HeadsOf const of{true, true, gain, gain, 0.25};
  auto const projected = random({2, 70, 96}).to(type);
  auto const fused = split_heads(projected, 16, of), plain = split_heads_by_aten(projected, 16, of);
  ASSERT_EQ(fused.size(), plain.size());
  for (std::size_t i = 0; i < fused.size(); ++i) EXPECT_LT(distance(fused[i], plain[i]), tolerance(type));
}

TEST_P(FusedTest, TheNumberOfThreadsChangesNoBit) {
  auto const type = GetParam();
  auto const x = random({3, 200, 40}), weight = random({40}, 1), gate = random({3, 1, 40}), gain = random({8}, 1);
  auto const branch = random({3, 200, 40}).to(type), projected = random({3, 200, 120}).to(type);
  auto const all = [&] {
    Tensors bits;
    auto const add = [&](Both const& one) {
      bits.insert(bits.end(), one.results.begin(), one.results.end());
      bits.insert(bits.end(), one.gradients.begin(), one.gradients.end());
    };
    add(both([&](Tensors const& in) -> Tensors { return {norm(in[0], in[1], {}, 1e-5, type)}; }, {x, weight}));
    add(both([&](Tensors const& in) -> Tensors { return {gated_add(in[0], in[1], in[2])}; }, {x, gate, branch}));
    add(both([&](Tensors const& in) -> Tensors {
      auto const sums = add_norm(in[0], in[1], in[2], {in[3], {}, 1e-5, type});
      return {sums.sum, sums.normalized};
    }, {x, gate, branch, weight}));
    add(both([&](Tensors const& in) { return split_heads(in[0], 8, {true, true, in[1], in[2], 0.5}); }, {projected, gain, gain}));
    return bits;
  };
  int const before = at::get_num_threads();
  at::set_num_threads(1);
  auto const one = all();
  at::set_num_threads(3);
  auto const three = all();
  at::set_num_threads(before);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], three[i])) << i;
}

TEST(RowsTest, BfloatsAreRoundedAsAtenRoundsThem) {
  auto const special = at::tensor({0.0F, -0.0F, 1.00390625F, 1.01171875F, 3.4e38F, -3.4e38F, 1e-40F, INFINITY, -INFINITY, NAN});
  for (auto const& x : {special, at::randn({1003}) * 1e3}) {
    at::Tensor const ours = at::empty(x.sizes(), at::kBFloat16), theirs = x.to(at::kBFloat16);
    rows::store(x.const_data_ptr<float>(), at::kBFloat16, ours.data_ptr(), x.numel());
    EXPECT_TRUE(at::allclose(ours, theirs, 0, 0, /*equal_nan=*/true));
    EXPECT_TRUE(at::equal(at::signbit(ours).logical_and(at::isfinite(x)), at::signbit(theirs).logical_and(at::isfinite(x))));
    at::Tensor const back = at::empty(x.sizes());
    rows::load(ours.data_ptr(), at::kBFloat16, back.mutable_data_ptr<float>(), x.numel());
    EXPECT_TRUE(at::allclose(back, theirs.to(at::kFloat), 0, 0, true));
  }
}

}  // namespace
}  // namespace duoflow::model
