// The CUDA kernels of the fused operators, their source compiled for the CPU by an emulator, against the same formulas in
// fp64: results and gradients, in fp32 and bf16, for one row and for more than a block has, widths that fill packs, warps
// and registers and that do not, and addresses that packs do not fit. What only a GPU shows is in tests/gpu.

#include <functional>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/support/cuda_emulator.h"

#include "model/fused/cuda/add_norm.cu"
#include "model/fused/cuda/columns.cu"
#include "model/fused/cuda/gated_add.cu"
#include "model/fused/cuda/gelu.cu"
#include "model/fused/cuda/heads.cu"
#include "model/fused/cuda/images.cu"
#include "model/fused/cuda/norm.cu"
#include "model/rays.h"
#include "tests/support/guarded.h"

namespace duoflow::model::kernels {
namespace {

using Tensors = std::vector<at::Tensor>;

at::Tensor random(at::IntArrayRef shape, double mean = 0) { return at::randn(shape) + mean; }
float* floats(at::Tensor const& t) { return t.defined() ? static_cast<float*>(t.data_ptr()) : nullptr; }
Number number_of(at::ScalarType type) { return type == at::kBFloat16 ? Number::bf16 : Number::fp32; }
double tolerance(at::ScalarType type) { return type == at::kBFloat16 ? 4e-3 : 5e-6; }  // one rounding of 2^-8; sums of 1028 numbers in fp32

// The formula in fp64 on `inputs` (undefined ones are passed on), and gradients of all defined inputs for `roots`.
struct Exact {
  Tensors results, gradients;
  Exact(std::function<Tensors(Tensors const&)> const& formula, Tensors const& inputs, Tensors const& roots) {
    Tensors wide, wanted, wide_roots, differentiated;
    for (at::Tensor const& input : inputs) {
      wide.push_back(input.defined() ? input.detach().to(at::kDouble).clone().requires_grad_(true) : at::Tensor());
      if (input.defined()) wanted.push_back(wide.back());
    }
    results = formula(wide);
    for (std::size_t i = 0; i < roots.size(); ++i) {
      if (!roots[i].defined()) continue;
      differentiated.push_back(results[i]);
      wide_roots.push_back(roots[i].to(at::kDouble));
    }
    auto const found = torch::autograd::grad(differentiated, wanted, wide_roots);
    std::size_t next = 0;
    for (at::Tensor const& input : inputs) gradients.push_back(input.defined() ? found[next++] : at::Tensor());
  }
};

struct Case {
  at::ScalarType type;
  std::int64_t skip;  // elements off a boundary
};
void PrintTo(Case const& test, std::ostream* out) { *out << test.type << ", " << test.skip << " off a boundary"; }
std::string name_of(testing::TestParamInfo<Case> const& test) {
  return std::string(test.param.type == at::kFloat ? "fp32" : "bf16") + (test.param.skip == 0 ? "" : "_off_boundary");
}

class FusedCudaTest : public testing::TestWithParam<Case> {
 protected:
  FusedCudaTest() { at::manual_seed(3); }
  at::ScalarType const type = GetParam().type;
  Number const number = number_of(type);
  GuardedTensors memory{GetParam().skip};
  // As near as the type of what is written allows.
  void expect_near(char const* what, at::Tensor const& ours, at::Tensor const& exact, std::string const& where) const {
    EXPECT_LT(distance(ours.reshape(exact.sizes()), exact), tolerance(ours.scalar_type())) << what << ", " << where;
  }
};
INSTANTIATE_TEST_SUITE_P(Cases, FusedCudaTest,
                         testing::Values(Case{at::kFloat, 0}, Case{at::kBFloat16, 0}, Case{at::kFloat, 1}, Case{at::kBFloat16, 1}),
                         name_of);

enum class Affine { none, weight, weights, weights_and_shifts };

Tensors norm_formula(Tensors const& in) {
  at::Tensor y = at::layer_norm(in[0], {in[0].size(-1)}, {}, {}, 1e-5);
  if (in[1].defined()) y = y * in[1];
  return {in[2].defined() ? y + in[2] : y};
}

TEST_P(FusedCudaTest, NormIsThatOfFp64) {
  for (std::int64_t const width : {7, 64, 130, 768, 1000, 1028})
    for (std::int64_t const rows : {1, 35})
      for (Affine const kind : {Affine::none, Affine::weight, Affine::weights, Affine::weights_and_shifts}) {
        if (width > 130 && (kind == Affine::none || rows == 1)) continue;  // as the narrower ones
        std::int64_t const samples = kind == Affine::weight && rows == 1 ? 1 : 2;
        bool const each = kind >= Affine::weights;
        std::vector<std::int64_t> const shape_of_weight = each ? std::vector{samples, std::int64_t{1}, width} : std::vector{width};
        at::Tensor const x = memory.copy_of(random({samples, rows, width}, 5)),
                         dy = memory.copy_of(random({samples, rows, width}).to(type));
        at::Tensor const weight = kind == Affine::none ? at::Tensor() : memory.copy_of(random(shape_of_weight, 1));
        at::Tensor const shift = kind == Affine::weights_and_shifts ? memory.copy_of(random(shape_of_weight)) : at::Tensor();
        NormRows const shape{each ? samples : 1, each ? rows : samples * rows, width};
        at::Tensor const y = memory.empty(x.sizes(), type), moments = memory.empty({samples * rows, 2}), dx = memory.empty(x.sizes());
        int const sums = kind == Affine::none ? 0 : shift.defined() ? 2 : 1;
        at::Tensor const totals = memory.empty({shape.groups, sums, width}), workspace = memory.empty({norm_workspace(shape, sums)});
        norm_forward(floats(x), floats(weight), floats(shift), 1e-5F, y.data_ptr(), number, floats(moments), shape, nullptr);
        norm_backward(floats(x), floats(weight), floats(moments), dy.data_ptr(), number, floats(dx), sums, floats(totals),
                      floats(workspace), shape, nullptr);
        Exact const exact(norm_formula, {x, weight, shift}, {dy});
        std::string const where =
            std::to_string(rows) + " rows of " + std::to_string(width) + ", kind " + std::to_string(static_cast<int>(kind));
        expect_near("y", y, exact.results[0], where);
        expect_near("dx", dx, exact.gradients[0], where);
        if (sums > 0) expect_near("dweight", totals.select(1, 0), exact.gradients[1], where);
        if (sums > 1) expect_near("dshift", totals.select(1, 1), exact.gradients[2], where);
      }
  memory.expect_untouched_guards("norm");
}

Tensors heads_formula(Tensors const& in, std::int64_t parts, std::int64_t width, double factor) {
  Tensors out;
  for (std::int64_t p = 0; p < parts; ++p) {
    at::Tensor part = in[0].chunk(parts, 2)[static_cast<std::size_t>(p)].unflatten(-1, {-1, width}).transpose(1, 2);
    if (p < 2 && in[static_cast<std::size_t>(p) + 1].defined())
      part = part * at::rsqrt((part * part).mean(-1, true) + 1e-5) * in[static_cast<std::size_t>(p) + 1];
    out.push_back(p == 0 ? part * factor : part);
  }
  return out;
}

TEST_P(FusedCudaTest, HeadsAreThoseOfFp64) {
  struct Kind {
    std::int64_t parts;
    bool first_gain, second_gain, values_get_gradient, tokens_first;
  };
  std::int64_t const samples = 2, heads = 3;
  for (std::int64_t const width : {16, 24, 64, 250})
    for (std::int64_t const tokens : {1, 35})
      for (Kind const kind : {Kind{3, true, true, true, false}, Kind{3, false, true, false, true}, Kind{2, true, false, true, true},
                              Kind{1, true, false, true, false}, Kind{3, false, false, true, false}}) {
        if (width == 250 && kind.parts < 3) continue;
        HeadsShape const shape{samples, tokens, kind.parts, heads, width};
        at::Tensor const projected = memory.copy_of(random({samples, tokens, kind.parts * heads * width}).to(type));
        at::Tensor const first = kind.first_gain ? memory.copy_of(random({width}, 1)) : at::Tensor(),
                         second = kind.second_gain ? memory.copy_of(random({width}, 1)) : at::Tensor();
        float const* const gains[] = {floats(first), floats(second)};
        Tensors out, roots;
        void* outputs[3] = {};
        HeadsGradient gradients[3];
        for (std::int64_t p = 0; p < kind.parts; ++p) {
          auto const i = static_cast<std::size_t>(p);
          out.push_back(memory.empty({samples, tokens, heads, width}, type).transpose(1, 2));
          outputs[i] = out.back().data_ptr();
          roots.emplace_back();
          if (p == 2 && !kind.values_get_gradient) continue;
          roots.back() = kind.tokens_first ? memory.copy_of(random({samples, tokens, heads, width}).to(type)).transpose(1, 2)
                                           : memory.copy_of(random({samples, heads, tokens, width}).to(type));
          at::Tensor const& g = roots.back();
          gradients[i] = {g.data_ptr(), g.stride(0), g.stride(1), g.stride(2)};
        }
        at::Tensor const inverse = memory.empty({samples * tokens, 2, heads}), dprojected = memory.empty(projected.sizes(), type);
        at::Tensor const totals = memory.empty({2, width}), workspace = memory.empty({heads_workspace(shape)});
        bool const sums = kind.first_gain || kind.second_gain;
        heads_forward(projected.data_ptr(), number, gains, 0.3F, 1e-5F, outputs, floats(inverse), shape, nullptr);
        heads_backward(projected.data_ptr(), number, gains, 0.3F, floats(inverse), gradients, dprojected.data_ptr(),
                       sums ? floats(totals) : nullptr, sums ? floats(workspace) : nullptr, shape, nullptr);
        Exact const exact([&](Tensors const& in) { return heads_formula(in, kind.parts, width, 0.3); }, {projected, first, second}, roots);
        std::string const where =
            std::to_string(kind.parts) + " parts, " + std::to_string(tokens) + " tokens, width " + std::to_string(width);
        for (std::size_t p = 0; p < out.size(); ++p) expect_near("a part", out[p], exact.results[p], where);
        expect_near("dprojected", dprojected, exact.gradients[0], where);
        if (kind.first_gain) expect_near("first gain's", totals[0], exact.gradients[1], where);
        if (kind.second_gain) expect_near("second gain's", totals[1], exact.gradients[2], where);
      }
  memory.expect_untouched_guards("heads");
}

TEST_P(FusedCudaTest, GatedSumsAreThoseOfFp64AlsoOfTheFirstTokensOfMore) {
  std::int64_t const samples = 2;
  for (std::int64_t const width : {7, 64, 130, 768, 1000, 1028})
    for (std::int64_t const tokens : {1, 70})
      for (bool const gated : {true, false}) {
        at::Tensor const all = memory.copy_of(random({samples, tokens + 3, width})), x = all.narrow(1, 0, tokens);
        at::Tensor const gate = gated ? memory.copy_of(random({samples, 1, width})) : at::Tensor();
        at::Tensor const y = memory.copy_of(random({samples, tokens, width}).to(type)),
                         g = memory.copy_of(random({samples, tokens, width}));
        GatedShape const shape{samples, tokens, width, x.stride(0), x.stride(1)};
        at::Tensor const out = memory.empty(y.sizes());
        gated_add_forward(floats(x), floats(gate), y.data_ptr(), number, floats(out), shape, nullptr);
        Exact const exact([](Tensors const& in) -> Tensors { return {in[0] + (in[1].defined() ? in[1] * in[2] : in[2])}; }, {x, gate, y},
                          {g});
        std::string const where = std::to_string(tokens) + " tokens of " + std::to_string(width);
        expect_near("out", out, exact.results[0], where);
        if (!gated) continue;
        for (bool const sums : {true, false}) {
          at::Tensor const dy = memory.empty(y.sizes(), type), dgate = memory.empty(gate.sizes()),
                           workspace = memory.empty({gated_add_workspace(shape)});
          gated_add_backward(floats(g), floats(gate), y.data_ptr(), number, dy.data_ptr(), sums ? floats(dgate) : nullptr,
                             sums ? floats(workspace) : nullptr, shape, nullptr);
          expect_near("dy", dy, exact.gradients[2], where);
          if (sums) expect_near("dgate", dgate, exact.gradients[1], where);
        }
      }
  memory.expect_untouched_guards("gated add");
}

Tensors add_norm_formula(Tensors const& in) {
  at::Tensor const sum = in[0] + (in[1].defined() ? in[1] * in[2] : in[2]);
  return {sum, norm_formula({sum, in[3], in[4]})[0]};
}

TEST_P(FusedCudaTest, ASumAndItsNormAreThoseOfFp64AlsoOfTheFirstTokensOfMore) {
  struct Kind {
    bool gated;
    Affine affine;
    bool sum_gets_gradient;
  };
  std::int64_t const samples = 2;
  for (std::int64_t const width : {7, 64, 130, 768, 1028})
    for (std::int64_t const tokens : {1, 35})
      for (Kind const kind : {Kind{false, Affine::weight, true}, Kind{true, Affine::weights_and_shifts, true},
                              Kind{true, Affine::none, false}, Kind{false, Affine::weights, false}, Kind{true, Affine::weight, true},
                              Kind{false, Affine::none, true}, Kind{false, Affine::weights_and_shifts, true}}) {
        bool const each = kind.affine >= Affine::weights;
        if (tokens == 1 ? width > 64 : width > 130 && kind.gated != each) continue;  // as the narrower ones
        std::vector<std::int64_t> const shape_of_weight = each ? std::vector{samples, std::int64_t{1}, width} : std::vector{width};
        at::Tensor const all = memory.copy_of(random({samples, tokens + 3, width}, 2)), x = all.narrow(1, 0, tokens);
        at::Tensor const y = memory.copy_of(random({samples, tokens, width}).to(type));
        at::Tensor const gate = kind.gated ? memory.copy_of(random({samples, 1, width})) : at::Tensor();
        at::Tensor const weight = kind.affine == Affine::none ? at::Tensor() : memory.copy_of(random(shape_of_weight, 1));
        at::Tensor const shift = kind.affine == Affine::weights_and_shifts ? memory.copy_of(random(shape_of_weight)) : at::Tensor();
        at::Tensor const d_sum = kind.sum_gets_gradient ? memory.copy_of(random(y.sizes())) : at::Tensor();
        at::Tensor const d_out = memory.copy_of(random(y.sizes()).to(type));
        AddNormShape const shape{{samples, tokens, width, x.stride(0), x.stride(1)}, each ? samples : 1, kind.gated};
        at::Tensor const sum = memory.empty(y.sizes()), out = memory.empty(y.sizes(), type), moments = memory.empty({samples * tokens, 2});
        add_norm_forward(floats(x), floats(gate), y.data_ptr(), number, floats(weight), floats(shift), 1e-5F, floats(sum), out.data_ptr(),
                         floats(moments), shape, nullptr);
        Exact const exact(add_norm_formula, {x, gate, y, weight, shift}, {d_sum, d_out});
        std::string const where = std::to_string(tokens) + " tokens of " + std::to_string(width) + ", gate " + std::to_string(kind.gated) +
                                  ", kind " + std::to_string(static_cast<int>(kind.affine));
        expect_near("sum", sum, exact.results[0], where);
        expect_near("normalised", out, exact.results[1], where);
        AddNormKept const kept{floats(sum), floats(weight), floats(moments), floats(gate), kind.gated ? y.data_ptr() : nullptr};
        int const all_sums = kind.gated || shift.defined() ? kAddNormSums : weight.defined() ? 1 : 0;
        for (int const sums : {all_sums, 0}) {
          bool const with_dy = kind.gated || sums > 0;
          at::Tensor const dx = memory.empty(y.sizes()), dy = memory.empty(y.sizes(), type),
                           totals = memory.empty({shape.groups(), sums, width}),
                           workspace = memory.empty({add_norm_workspace(shape, sums)});
          add_norm_backward(kept, floats(d_sum), d_out.data_ptr(), number, floats(dx), with_dy ? dy.data_ptr() : nullptr, sums,
                            floats(totals), floats(workspace), shape, nullptr);
          auto const total = [&](std::int64_t i, at::Tensor const& like) {
            return like.dim() == 3 ? totals.select(1, i) : totals.select(1, i).sum(0);
          };
          expect_near("dx", dx, exact.gradients[0], where);
          if (with_dy) expect_near("dy", dy, exact.gradients[2], where);
          if (sums > 0 && weight.defined()) expect_near("dweight", total(0, weight), exact.gradients[3], where);
          if (sums > 0 && shift.defined()) expect_near("dshift", total(1, shift), exact.gradients[4], where);
          if (sums > 0 && kind.gated) expect_near("dgate", total(2, gate), exact.gradients[1], where);
        }
      }
  memory.expect_untouched_guards("sum and norm");
}

TEST_P(FusedCudaTest, GeluIsThatOfFp64) {
  for (std::int64_t const count : {1, 7, 256, 5003}) {
    at::Tensor const x = memory.copy_of((at::linspace(3, -6, count) + 0.01).to(type)), dy = memory.copy_of(random({count}).to(type));
    at::Tensor const y = memory.empty({count}, type), again = memory.empty({count}, type), g = memory.copy_of(dy);
    gelu_forward(x.data_ptr(), number, y.data_ptr(), count, nullptr);
    gelu_backward(x.data_ptr(), g.data_ptr(), number, again.data_ptr(), count, nullptr);
    Exact const exact([](Tensors const& in) -> Tensors { return {at::gelu(in[0])}; }, {x}, {dy});
    expect_near("y", y, exact.results[0], std::to_string(count));
    expect_near("y again", again, exact.results[0], std::to_string(count));
    expect_near("g", g, exact.gradients[0], std::to_string(count));
    at::Tensor const alone = memory.copy_of(dy);
    gelu_backward(x.data_ptr(), alone.data_ptr(), number, nullptr, count, nullptr);
    EXPECT_TRUE(at::equal(alone, g)) << count;
  }
  memory.expect_untouched_guards("gelu");
}

class ImagesCudaTest : public testing::TestWithParam<std::int64_t> {};  // elements off a boundary
INSTANTIATE_TEST_SUITE_P(OffBoundary, ImagesCudaTest, testing::Values(0, 1), [](auto const& test) { return std::to_string(test.param); });

TEST_P(ImagesCudaTest, MeanSquareErrorsAreThoseOfFp64) {
  at::manual_seed(5);
  GuardedTensors memory(GetParam());
  for (std::int64_t const samples : {1, 3})
    for (std::int64_t const count : {1, 30, 5000}) {
      at::Tensor const image = memory.copy_of(random({samples, count}, 1)), target = memory.copy_of(random({samples, count}));
      at::Tensor const g = memory.copy_of(random({samples})), errors = memory.empty({samples}), dimage = memory.empty({samples, count});
      at::Tensor const workspace = memory.empty({mean_square_error_workspace(samples, count)});
      mean_square_error_forward(floats(image), floats(target), samples, count, floats(errors), floats(workspace), nullptr);
      mean_square_error_backward(floats(image), floats(target), floats(g), samples, count, floats(dimage), nullptr);
      Exact const exact([&](Tensors const& in) -> Tensors { return {(in[0] - in[1]).square().mean(1)}; }, {image, target}, {g});
      EXPECT_LT(distance(errors, exact.results[0]), 2e-6) << samples << " x " << count;
      EXPECT_LT(distance(dimage, exact.gradients[0]), 2e-6) << samples << " x " << count;
    }
  memory.expect_untouched_guards("mean square error");
}

TEST_P(ImagesCudaTest, RaysAreThoseOfTheCpu) {
  at::manual_seed(6);
  GuardedTensors memory(GetParam());
  std::int64_t const height = 9, width = 31;
  at::Tensor const c2w = memory.copy_of(random({2, 2, 4, 4})), intrinsics = memory.copy_of(at::rand({2, 2, 4}) * 20 + 5);
  at::Tensor const rays = memory.empty({2, 2, 6, height, width});
  kernels::pluecker_rays(floats(c2w), floats(intrinsics), 4, height, width, floats(rays), nullptr);
  EXPECT_LT(distance(rays, model::pluecker_rays(c2w, intrinsics, height, width)), 2e-6);
  memory.expect_untouched_guards("rays");
}

// The emulator draws another order of blocks and threads each time.
TEST(FusedCudaOrderTest, ChangesNoBitOfASum) {
  GuardedTensors memory;
  NormRows const shape{2, 200, 96};
  at::Tensor const x = random({2, 200, 96}), weight = random({2, 96}), dy = random({2, 200, 96}), dx = at::empty_like(x),
                   y = at::empty_like(x);
  at::Tensor const moments = at::empty({400, 2}), workspace = at::empty({norm_workspace(shape, 2)});
  norm_forward(floats(x), floats(weight), floats(weight), 1e-5F, floats(y), Number::fp32, floats(moments), shape, nullptr);
  Tensors totals;
  for (int run = 0; run < 3; ++run) {
    totals.push_back(at::empty({2, 2, 96}));
    norm_backward(floats(x), floats(weight), floats(moments), floats(dy), Number::fp32, floats(dx), 2, floats(totals.back()),
                  floats(workspace), shape, nullptr);
    EXPECT_TRUE(at::equal(totals.back(), totals.front()));
  }
}

TEST(FusedCudaSizesTest, NothingIsDoneForNoRowsAndWiderHeadsAreRefused) {
  float const* const gains[2] = {};
  void* const out[3] = {};
  norm_forward(nullptr, nullptr, nullptr, 1e-5F, nullptr, Number::fp32, nullptr, {2, 0, 8}, nullptr);
  gated_add_forward(nullptr, nullptr, nullptr, Number::bf16, nullptr, {2, 0, 8, 0, 8}, nullptr);
  add_norm_forward(nullptr, nullptr, nullptr, Number::bf16, nullptr, nullptr, 1e-5F, nullptr, nullptr, nullptr, {{2, 0, 8}}, nullptr);
  add_norm_backward({}, nullptr, nullptr, Number::bf16, nullptr, nullptr, 3, nullptr, nullptr, {{0, 5, 8}, 1, true}, nullptr);
  gelu_forward(nullptr, Number::fp32, nullptr, 0, nullptr);
  heads_forward(nullptr, Number::bf16, gains, 1, 1e-5F, out, nullptr, {0, 5, 3, 2, 64}, nullptr);
  EXPECT_THROW(heads_forward(nullptr, Number::bf16, gains, 1, 1e-5F, out, nullptr, {1, 1, 3, 1, 257}, nullptr), std::invalid_argument);
}

}  // namespace
}  // namespace duoflow::model::kernels
