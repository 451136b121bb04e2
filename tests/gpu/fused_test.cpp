// The CUDA kernels of the fused operators and of the optimizer against ATen's operators on the same device: results,
// gradients, the same bits every time, no host synchronisation, and inside a CUDA graph.

#include <functional>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "dist/cuda/update.h"
#include "dist/sharded_adamw.h"
#include "model/fused/add_norm.h"
#include "model/fused/cuda/operators.h"
#include "model/fused/gated_add.h"
#include "model/fused/heads.h"
#include "model/fused/mlp.h"
#include "model/fused/norm.h"
#include "model/loss/pixel_terms.h"
#include "model/rays.h"
#include "tests/gpu/cuda_world.h"

namespace duoflow::model {
namespace {

using Tensors = std::vector<at::Tensor>;
using Operator = std::function<Tensors(Tensors const&)>;

at::Tensor random(at::IntArrayRef shape, double mean = 0) { return at::randn(shape, at::kCUDA) + mean; }

// Results, and gradients of a fixed weighted sum of them.
Tensors both(Operator const& op, Tensors inputs) {
  Tensors wanted, roots;
  for (auto& input : inputs) {
    if (!input.defined()) continue;
    input = input.detach().requires_grad_(true);
    wanted.push_back(input);
  }
  Tensors out = op(inputs);
  for (auto const& result : out)
    roots.push_back(
        at::sin(at::arange(result.numel(), at::dtype(at::kFloat).device(at::kCUDA))).reshape(result.sizes()).to(result.scalar_type()));
  auto const gradients = torch::autograd::grad(out, wanted, roots);
  out.insert(out.end(), gradients.begin(), gradients.end());
  return out;
}

class CudaFused : public testing::TestWithParam<at::ScalarType> {
 protected:
  at::ScalarType const type = GetParam();
  double const tolerance = type == at::kBFloat16 ? 8e-3 : 5e-6;

  void expect_near(Operator const& fused, Operator const& plain, Tensors const& inputs) const {
    auto const ours = both(fused, inputs), again = both(fused, inputs), theirs = both(plain, inputs);
    ASSERT_EQ(ours.size(), theirs.size());
    for (std::size_t i = 0; i < ours.size(); ++i) {
      EXPECT_LT(relative_distance(ours[i], theirs[i]), tolerance) << "tensor " << i;
      EXPECT_TRUE(at::equal(ours[i], again[i])) << "tensor " << i;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Types, CudaFused, testing::Values(at::kFloat, at::kBFloat16),
                         [](auto const& test) { return test.param == at::kFloat ? "fp32" : "bf16"; });

TEST_P(CudaFused, TheProgramHasKernels) { EXPECT_TRUE(cuda::takes(random({2}).to(type))) << "it was built without nvcc"; }

TEST_P(CudaFused, NormIsAtens) {
  for (std::int64_t const width : {7, 130, 192, 512, 768, 1024, 1536})
    for (int const kind : {0, 1, 2, 3}) {
      at::Tensor const weight = kind == 0 ? at::Tensor() : kind == 1 ? random({width}, 1) : random({3, 1, width}, 1);
      at::Tensor const shift = kind == 3 ? random({3, 1, width}) : at::Tensor();
      expect_near([&](Tensors const& in) -> Tensors { return {norm(in[0], in[1], in[2], 1e-5, type)}; },
                  [&](Tensors const& in) -> Tensors { return {norm_by_aten(in[0], in[1], in[2], 1e-5, type)}; },
                  {random({3, 2000, width}, 2), weight, shift});
    }
}

TEST_P(CudaFused, HeadsAreAtens) {
  for (std::int64_t const width : {24, 64, 128, 250})
    for (auto const& [queries, keys] : {std::pair(true, true), std::pair(true, false), std::pair(false, true)})
      for (bool const normed : {true, false}) {
        std::int64_t const parts = (queries ? 1 : 0) + (keys ? 2 : 0), heads = 3;
        auto const gain = [&](bool there) { return normed && there ? random({width}, 1) : at::Tensor(); };
        auto const of = [&, queries = queries, keys = keys](Tensors const& in) { return HeadsOf{queries, keys, in[1], in[2], 0.3}; };
        expect_near([&](Tensors const& in) { return split_heads(in[0], width, of(in)); },
                    [&](Tensors const& in) { return split_heads_by_aten(in[0], width, of(in)); },
                    {random({2, 1000, parts * heads * width}).to(type), gain(queries), gain(keys)});
      }
}

TEST_P(CudaFused, GatedSumsAreAtens) {
  for (std::int64_t const width : {33, 768, 1536})
    expect_near([](Tensors const& in) -> Tensors { return {gated_add(in[0].narrow(1, 0, 1000), in[1], in[2])}; },
                [](Tensors const& in) -> Tensors { return {gated_add_by_aten(in[0].narrow(1, 0, 1000), in[1], in[2])}; },
                {random({2, 1100, width}), random({2, 1, width}), random({2, 1000, width}).to(type)});
  expect_near([](Tensors const& in) -> Tensors { return {cuda::gated_add(in[0].narrow(1, 0, 1000), {}, in[1])}; },
              [](Tensors const& in) -> Tensors { return {in[0].narrow(1, 0, 1000) + in[1]}; },
              {random({2, 1100, 768}), random({2, 1000, 768}).to(type)});
}

TEST_P(CudaFused, SumsAndTheirNormsAreAtens) {
  for (std::int64_t const width : {33, 192, 768, 1024})
    for (int const kind : {0, 1, 2, 3}) {  // as the renderer's and the editor's blocks have them, and what else there may be
      bool const gated = kind > 1;
      at::Tensor const weight = kind == 0 ? at::Tensor() : kind == 3 ? random({2, 1, width}, 1) : random({width}, 1);
      auto const of = [&](Tensors const& in) { return NormOf{in[3], in[4], 1e-5, type}; };
      expect_near(
          [&](Tensors const& in) -> Tensors {
            auto const both = add_norm(in[0].narrow(1, 0, 1000), in[1], in[2], of(in));
            return {both.sum, both.normalized};
          },
          [&](Tensors const& in) -> Tensors {
            at::Tensor const x = in[0].narrow(1, 0, 1000), sum = gated ? gated_add_by_aten(x, in[1], in[2]) : x + in[2];
            return {sum, norm_by_aten(sum, in[3], in[4], 1e-5, type)};
          },
          {random({2, 1100, width}, 2), gated ? random({2, 1, width}) : at::Tensor(), random({2, 1000, width}).to(type), weight,
           kind == 3 ? random({2, 1, width}) : at::Tensor()});
    }
}

// Either result may be all that is used.
TEST_P(CudaFused, ASumOrItsNormAloneHasGradients) {
  at::Tensor const weight = random({768}, 1);
  for (bool const of_sum : {true, false})
    expect_near(
        [&](Tensors const& in) -> Tensors {
          auto const both = add_norm(in[0], in[1], in[2], {weight, {}, 1e-5, type});
          return {of_sum ? both.sum : both.normalized};
        },
        [&](Tensors const& in) -> Tensors {
          at::Tensor const sum = gated_add_by_aten(in[0], in[1], in[2]);
          return {of_sum ? sum : norm_by_aten(sum, weight, {}, 1e-5, type)};
        },
        {random({2, 300, 768}), random({2, 1, 768}), random({2, 300, 768}).to(type)});
}

TEST_P(CudaFused, GeluIsAtens) {
  for (std::int64_t const count : {1003, 1 << 20}) {
    at::Tensor const x = random({count}).to(type), dy = random({count}).to(type);
    at::Tensor const g = dy.clone(), y = at::empty_like(x);
    EXPECT_LT(relative_distance(cuda::gelu(x), at::gelu(x)), tolerance);
    cuda::gelu_back(x, g, y);
    EXPECT_LT(relative_distance(y, at::gelu(x)), tolerance);
    EXPECT_LT(relative_distance(g, at::gelu_backward(dy, x)), tolerance);
  }
}

TEST_P(CudaFused, AnMlpIsAtens) {
  expect_near([](Tensors const& in) -> Tensors { return {mlp(in[0], in[1], in[2])}; },
              [](Tensors const& in) -> Tensors { return {mlp_by_aten(in[0], in[1], in[2])}; },
              {random({2, 300, 128}).to(type), (random({512, 128}) / 11).to(type), (random({128, 512}) / 22).to(type)});
}

TEST(CudaImages, AreTheCpus) {
  at::Tensor const image = random({2, 3, 3, 40, 50}), target = random(image.sizes());
  auto const ours = both([&](Tensors const& in) -> Tensors { return {mean_square_error(in[0], target)}; }, {image});
  auto const theirs = both([&](Tensors const& in) -> Tensors { return {(in[0] - target).square().flatten(1).mean(1)}; }, {image});
  for (std::size_t i = 0; i < ours.size(); ++i) EXPECT_LT(relative_distance(ours[i], theirs[i]), 5e-6) << i;
  at::Tensor const c2w = random({2, 3, 4, 4}), intrinsics = at::rand({2, 3, 4}, at::kCUDA) * 100 + 20;
  EXPECT_LT(relative_distance(pluecker_rays(c2w, intrinsics, 40, 50), pluecker_rays(c2w.cpu(), intrinsics.cpu(), 40, 50)), 5e-6);
}

// All of them, forward and backward.
Tensors chain(Tensors const& in) {
  auto const heads = split_heads(norm(in[0], in[1], in[2], 1e-5, at::kBFloat16).repeat({1, 1, 3}), 64, {true, true, in[3], in[3], 0.5});
  at::Tensor const mixed = mlp((heads[0] + heads[1] * heads[2]).transpose(1, 2).flatten(2), in[4], in[5]);
  auto const both = add_norm(gated_add(in[0], in[1], mixed), in[1], mixed, {in[1], in[2], 1e-5, at::kBFloat16});
  return {both.sum, both.normalized};
}

Tensors chain_inputs() {
  auto const matrix = [](std::int64_t rows, std::int64_t columns) { return (random({rows, columns}) / 16).to(at::kBFloat16); };
  return {random({2, 300, 128}), random({2, 1, 128}, 1), random({2, 1, 128}), random({64}, 1), matrix(512, 128), matrix(128, 512)};
}

TEST(CudaFusedStreams, TheHostDoesNotWait) {
  auto const inputs = chain_inputs();
  both(chain, inputs);  // what is set up once
  NoHostSynchronisation const watch;
  both(chain, inputs);
}

TEST(CudaFusedStreams, AGraphHoldsThem) {
  auto const inputs = chain_inputs();
  auto const expected = both(chain, inputs);
  c10::cuda::device_synchronize();  // another stream is to read the inputs
  c10::cuda::CUDAStream const side = c10::cuda::getStreamFromPool();
  at::cuda::CUDAGraph graph;
  Tensors captured;
  {
    c10::cuda::CUDAStreamGuard const on_side(side);
    both(chain, inputs);
    side.synchronize();
    graph.capture_begin();
    captured = both(chain, inputs);
    graph.capture_end();
  }
  for (auto& tensor : captured) tensor.detach().zero_();
  c10::cuda::device_synchronize();
  graph.replay();
  c10::cuda::device_synchronize();
  for (std::size_t i = 0; i < captured.size(); ++i) EXPECT_TRUE(at::equal(captured[i], expected[i])) << i;
}

}  // namespace
}  // namespace duoflow::model

namespace duoflow::dist {
namespace {

struct Updated {
  at::Tensor parameters, exp_avg, exp_avg_sq, average;
};

// Five updates, the third skipped, the fourth without one of two sections.
Updated updated(at::Device device) {
  at::Tensor const values = at::linspace(-1, 1, 5003);
  auto const leaf = [&](std::int64_t first, std::int64_t count) {
    return values.narrow(0, first, count).to(device, at::kFloat, false, true).requires_grad_();
  };
  FlatBuffer buffer({{"a", leaf(0, 3001), 0, 0}, {"b", leaf(3001, 2002), 1, 1}});
  ShardedAdamW optimizer(buffer, {0.9, 0.95, 1e-8, {0.1, 0.0}, {1, 0.5}, {0.9, true}});
  auto const scalar = [&](double value) { return at::full({}, value, at::dtype(at::kFloat).device(device)); };
  for (int step = 1; step <= 5; ++step) {
    at::Tensor const index = at::arange(buffer.size(), at::kFloat) * step;
    buffer.gradients().copy_(at::sin(index));
    optimizer.step(buffer.gradients(), scalar(0.01), scalar(step == 3 ? 1 : 0), step == 4 ? 2 : 0, scalar(0.5));
  }
  return {buffer.parameters().cpu(), optimizer.exp_avg().cpu(), optimizer.exp_avg_sq().cpu(), optimizer.average().cpu()};
}

TEST(CudaUpdate, IsTheCpus) {
  ASSERT_TRUE(has_update_kernel(at::Device(at::kCUDA))) << "it was built without nvcc";
  auto const cpu = updated(at::kCPU), cuda = updated(at::Device(at::kCUDA, 0));
  EXPECT_LT(relative_distance(cuda.parameters, cpu.parameters), 5e-6);
  EXPECT_LT(relative_distance(cuda.exp_avg, cpu.exp_avg), 5e-6);
  EXPECT_LT(relative_distance(cuda.exp_avg_sq, cpu.exp_avg_sq), 5e-6);
  EXPECT_LT(relative_distance(cuda.average, cpu.average), 5e-6);
}

}  // namespace
}  // namespace duoflow::dist
