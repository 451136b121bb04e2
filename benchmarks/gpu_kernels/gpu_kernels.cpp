// The CUDA kernels of the fused operators and of the optimizer at the sizes of configs/lvsm_256.yaml, against the memory
// bound and against ATen's operators, and the attention backends at head size 64.
//   gpu_kernels [SAMPLES]     samples per step, default 2
// A kernel's bytes are those that it must move: what it reads once and writes once, with what the backward must read again.
// The column of ATen's has, for a sum with its norm in one kernel, the two kernels that it stands for, one after the other.
// Bound: those bytes at the bandwidth of a large copy on this device. Where everything fits the L2 cache (50 MB on an H100)
// a share above 100 % is possible.
// Exit code 1 without a GPU or kernels, and where a result is not ATen's.

#include <cstdio>
#include <cstdlib>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/cuda/CUDAFunctions.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "benchmarks/gpu_kernels/timing.h"
#include "dist/cuda/update.h"
#include "model/fused/add_norm.h"
#include "model/fused/cuda/operators.h"
#include "model/fused/gated_add.h"
#include "model/fused/heads.h"
#include "model/fused/norm.h"
#include "model/rays.h"

namespace duoflow::benchmark {
namespace {

using Tensors = std::vector<at::Tensor>;
using Operator = std::function<Tensors(Tensors const&)>;

// configs/lvsm_256.yaml: a view has 32 x 32 patches of 8 pixels; the renderer's blocks see them and the latents, a sample a
// view; the editor's see the latents and the tokens of the light map, about as many as a view's.
constexpr std::int64_t kWidth = 768, kHead = 64, kViews = 8, kTokens = 1024 + 3072, kParameters = 180'000'000;

double copy_bytes_per_second = 0;
bool all_agree = true;

at::Tensor random(at::IntArrayRef shape, at::ScalarType type = at::kFloat) { return at::randn(shape, at::kCUDA).to(type); }

double gigabytes(Tensors const& tensors) {
  double bytes = 0;
  for (auto const& t : tensors)
    if (t.defined()) bytes += static_cast<double>(t.numel()) * static_cast<double>(t.element_size());
  return bytes * 1e-9;
}

void head_line() {
  fmt::print("  {:<34} {:>9} {:>8} {:>9} {:>7} {:>9} {:>7} {:>9}\n", "kernel", "ms", "MB", "GB/s", "bound", "ATen ms", "ratio", "differs");
}

void line(std::string const& name, Times const& ours, double gb, Times const& atens, double difference) {
  double const rate = gb / (ours.median_ms * 1e-3);
  fmt::print("  {:<34} {:>9.4f} {:>8.1f} {:>9.0f} {:>6.1f}% {:>9.4f} {:>7.2f} {:>9.1e}\n", name, ours.median_ms, gb * 1e3, rate,
             100e9 * rate / copy_bytes_per_second, atens.median_ms, atens.median_ms / ours.median_ms, difference);
  std::fflush(stdout);
}

double difference(Tensors const& ours, Tensors const& theirs, double allowed) {
  double most = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    auto const a = ours[i].detach().to(at::kFloat), b = theirs[i].detach().to(at::kFloat);
    most = std::max(most, ((a - b).abs().max() / b.abs().max()).item<double>());
  }
  if (!(most < allowed)) all_agree = false;
  return most;
}

// Forward without a graph, then backward of a graph that is kept. `again`: GB that the backward reads besides what comes in
// (results' gradients) and goes out (inputs' gradients).
void compare(std::string const& name, Operator const& fused, Operator const& plain, Tensors inputs, double forward_gb, double again_gb,
             double allowed = 2e-2) {
  {
    at::NoGradGuard const no_grad;
    double const differs = difference(fused(inputs), plain(inputs), allowed);
    line(name + ", forward", time_of([&] { fused(inputs); }), forward_gb, time_of([&] { plain(inputs); }), differs);
  }
  for (auto& input : inputs) input.requires_grad_(true);
  Tensors const ours = fused(inputs), theirs = plain(inputs);
  Tensors roots;
  for (auto const& result : ours) roots.push_back(at::randn_like(result));
  auto const back = [&](Tensors const& results) { return torch::autograd::grad(results, inputs, roots, /*retain_graph=*/true); };
  double const differs = difference(back(ours), back(theirs), allowed);
  line(name + ", backward", time_of([&] { back(ours); }), gigabytes(roots) + gigabytes(inputs) + again_gb, time_of([&] { back(theirs); }),
       differs);
}

// A sum and its norm, against gated_add and norm; inputs x, y, weight and, with a gate, shift and gate.
void sum_and_norm(std::string const& name, Tensors const& inputs, double eps) {
  auto const type = inputs[1].scalar_type();
  auto const input = [](Tensors const& in, std::size_t i) { return i < in.size() ? in[i] : at::Tensor(); };
  double const read = gigabytes({inputs[0], inputs[1]});
  compare(
      name,
      [&](Tensors const& in) -> Tensors {
        auto const both = model::cuda::add_norm(in[0], input(in, 4), in[1], {in[2], input(in, 3), eps, type});
        return {both.sum, both.normalized};
      },
      [&](Tensors const& in) -> Tensors {
        at::Tensor const sum = model::cuda::gated_add(in[0], input(in, 4), in[1]);
        return {sum, model::cuda::norm(sum, in[2], input(in, 3), eps, type)};
      },
      inputs, 2 * read, inputs.size() > 4 ? read : gigabytes({inputs[0]}));  // again: the sum, and what has a gate
}

// As model::mlp calls it: forward, and in the backward again, with the gradient multiplied in place.
void gelu(at::Tensor const& hidden, at::Tensor const& gradient) {
  constexpr double kAllowed = 2e-2;
  at::NoGradGuard const no_grad;
  auto const aten_back = [&] { return Tensors{at::gelu_backward(gradient, hidden), at::gelu(hidden)}; };
  line("gelu, renderer, forward", time_of([&] { model::cuda::gelu(hidden); }), gigabytes({hidden, hidden}), time_of([&] { at::gelu(hidden); }),
       difference({model::cuda::gelu(hidden)}, {at::gelu(hidden)}, kAllowed));
  at::Tensor const g = gradient.clone(), again = at::empty_like(hidden);
  model::cuda::gelu_back(hidden, g, again);
  double const differs = difference({g, again}, aten_back(), kAllowed);
  line("gelu again and its slope, renderer", time_of([&] { model::cuda::gelu_back(hidden, g, again); }), gigabytes({hidden, hidden, hidden, hidden}),
       time_of([&] { aten_back(); }), differs);
}

void operators(std::int64_t samples) {
  using namespace model;
  auto const bf16 = at::kBFloat16;
  at::Tensor const x = random({samples * kViews, kTokens, kWidth}), branch = random(x.sizes(), bf16);
  auto const weight = random({kWidth}), gain = random({kHead});
  compare(
      "norm, weight, renderer", [&](Tensors const& in) -> Tensors { return {norm(in[0], in[1], {}, 1e-5, bf16)}; },
      [&](Tensors const& in) -> Tensors { return {norm_by_aten(in[0], in[1], {}, 1e-5, bf16)}; }, {x, weight}, gigabytes({x, branch}),
      gigabytes({x}));
  compare(
      "residual sum, renderer", [](Tensors const& in) -> Tensors { return {cuda::gated_add(in[0], {}, in[1])}; },
      [](Tensors const& in) -> Tensors { return {in[0] + in[1]}; }, {x, branch}, gigabytes({x, branch, x}),
      -gigabytes({x}));  // the gradient of x is the result's
  sum_and_norm("sum and norm, renderer", {x, branch, weight}, 1e-5);
  {
    at::Tensor const projected = random({samples * kViews, kTokens, 3 * kWidth}, bf16);
    auto const of = [](Tensors const& in) { return HeadsOf{true, true, in[1], in[2], 1}; };
    compare(
        "heads with norms, renderer", [&](Tensors const& in) { return split_heads(in[0], kHead, of(in)); },
        [&](Tensors const& in) { return split_heads_by_aten(in[0], kHead, of(in)); }, {projected, gain, gain.clone()},
        gigabytes({projected, projected}), gigabytes({projected}) * 2 / 3);
  }
  {
    at::Tensor const hidden = random({samples * kViews, kTokens, 4 * kWidth}, bf16);
    gelu(hidden, random(hidden.sizes(), bf16));
  }
  at::Tensor const latents = random({samples, kTokens, kWidth}), step = random(latents.sizes(), bf16);
  auto const scale = random({samples, 1, kWidth}), shift = random({samples, 1, kWidth});
  compare(
      "norm, AdaLN, editor", [&](Tensors const& in) -> Tensors { return {norm(in[0], in[1], in[2], 1e-6, bf16)}; },
      [&](Tensors const& in) -> Tensors { return {norm_by_aten(in[0], in[1], in[2], 1e-6, bf16)}; }, {latents, scale, shift},
      gigabytes({latents, step}), gigabytes({latents}));
  compare(
      "gated sum, editor", [](Tensors const& in) -> Tensors { return {gated_add(in[0], in[1], in[2])}; },
      [](Tensors const& in) -> Tensors { return {gated_add_by_aten(in[0], in[1], in[2])}; }, {latents, scale, step},
      gigabytes({latents, step, latents}), gigabytes({step}) - gigabytes({latents}));
  sum_and_norm("gated sum and norm, AdaLN, editor", {latents, step, scale, shift, random({samples, 1, kWidth})}, 1e-6);
}

void pictures(std::int64_t samples) {
  std::int64_t const side = 256;
  at::Tensor const image = random({samples, kViews, 3, side, side}), target = random(image.sizes());
  compare(
      "square error of pictures", [&](Tensors const& in) -> Tensors { return {model::cuda::mean_square_error(in[0], target)}; },
      [&](Tensors const& in) -> Tensors { return {(in[0] - target).square().flatten(1).mean(1)}; }, {image}, gigabytes({image, target}),
      gigabytes({image, target}));
  at::NoGradGuard const no_grad;
  at::Tensor const c2w = random({samples, kViews, 4, 4}), intrinsics = at::rand({samples, kViews, 4}, at::kCUDA) * 100 + 100;
  at::Tensor const rays = model::pluecker_rays(c2w, intrinsics, side, side),
                   on_host = model::pluecker_rays(c2w.cpu(), intrinsics.cpu(), side, side);
  double const differs = difference({rays.cpu()}, {on_host}, 1e-4);
  Times const time = time_of([&] { model::pluecker_rays(c2w, intrinsics, side, side); });
  line("rays of views", time, gigabytes({rays}), time, differs);  // on a GPU ATen's way to them is no longer taken
}

struct Optimized {
  at::Tensor parameters, gradients, exp_avg, exp_avg_sq, average, bf16;
  explicit Optimized(std::int64_t count) {
    at::manual_seed(1);
    parameters = random({count}), gradients = random({count}), exp_avg = at::zeros_like(parameters),
    exp_avg_sq = at::zeros_like(parameters);
    average = parameters.clone(), bf16 = at::empty_like(parameters, at::kBFloat16);
  }
};

void optimizer() {
  at::NoGradGuard const no_grad;
  auto const scalar = [](double value) { return at::full({}, value, at::dtype(at::kFloat).device(at::kCUDA)); };
  at::Tensor const rate = scalar(1e-4), found_inf = scalar(0), count = scalar(3), weight = scalar(1e-3), factor = scalar(0.5);
  Optimized ours(kParameters), theirs(kParameters);
  auto const floats = [](at::Tensor const& t) { return t.mutable_data_ptr<float>(); };
  dist::kernels::AdamWRule const rule{0.9, 0.95, 0.05, 1e-8};
  auto const fused = [&] {
    dist::run_update_kernel({floats(ours.parameters), floats(ours.gradients), floats(ours.exp_avg), floats(ours.exp_avg_sq),
                             floats(ours.average), ours.bf16.mutable_data_ptr(), kParameters},
                            {floats(rate), floats(found_inf), floats(count), floats(weight), floats(factor)}, rule,
                            ours.parameters.device());
  };
  at::Tensor scratch = at::empty_like(theirs.parameters);
  auto const plain = [&] {
    at::mul_out(scratch, theirs.gradients, factor);
    at::Tensor parameters[] = {theirs.parameters}, gradients[] = {scratch}, exp_avg[] = {theirs.exp_avg},
               exp_avg_sq[] = {theirs.exp_avg_sq}, counts[] = {count};
    at::_fused_adamw_(parameters, gradients, exp_avg, exp_avg_sq, {}, counts, rate, rule.beta1, rule.beta2, rule.weight_decay, rule.eps,
                      false, false, {}, found_inf);
    at::sub_out(scratch, theirs.parameters, theirs.average);
    theirs.average.add_(scratch.mul_(weight));
    theirs.bf16.copy_(theirs.parameters);
  };
  fused(), plain();
  double const differs = difference({ours.parameters, ours.exp_avg, ours.exp_avg_sq, ours.average},
                                    {theirs.parameters, theirs.exp_avg, theirs.exp_avg_sq, theirs.average}, 1e-5);
  Tensors const moved{ours.gradients,  ours.parameters, ours.parameters, ours.exp_avg, ours.exp_avg,
                      ours.exp_avg_sq, ours.exp_avg_sq, ours.average,    ours.average, ours.bf16};
  line("clip, AdamW, average, bf16", time_of(fused, 5), gigabytes(moved), time_of(plain, 5), differs);
}

void attention(std::int64_t samples) {
  auto& context = at::globalContext();
  struct Backend {
    char const* name;
    bool flash, efficient, cudnn;
  };
  std::int64_t const heads = kWidth / kHead, batch = samples * kViews;
  auto const part = [&] { return random({batch, heads, kTokens, kHead}, at::kBFloat16).requires_grad_(true); };
  at::Tensor const q = part(), k = part(), v = part(), root = random({batch, heads, kTokens, kHead}, at::kBFloat16);
  double const forward_flop = 4.0 * static_cast<double>(batch * heads * kTokens * kTokens * kHead);
  fmt::print("  {:<34} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "attention, head size 64, bf16", "fwd ms", "TFLOP/s", "bwd ms", "TFLOP/s",
             "sum ms");
  std::string best;
  double best_ms = 0;
  for (auto const& [name, flash, efficient, cudnn] :
       {Backend{"flash", true, false, false}, Backend{"efficient", false, true, false}, Backend{"cuDNN", false, false, true}}) {
    context.setSDPUseMath(false), context.setSDPUseFlash(flash), context.setSDPUseMemEfficient(efficient), context.setSDPUseCuDNN(cudnn);
    try {
      at::Tensor const out = at::scaled_dot_product_attention(q, k, v);
      auto const forward = time_of([&] {
        at::NoGradGuard const no_grad;
        at::scaled_dot_product_attention(q, k, v);
      });
      auto const backward = time_of([&] { torch::autograd::grad({out}, {q, k, v}, {root}, /*retain_graph=*/true); }, 5);
      double const sum = forward.median_ms + backward.median_ms;
      fmt::print("  {:<34} {:>9.3f} {:>9.0f} {:>9.3f} {:>9.0f} {:>9.3f}\n", name, forward.median_ms,
                 forward_flop / forward.median_ms * 1e-9, backward.median_ms, 2.5 * forward_flop / backward.median_ms * 1e-9, sum);
      if (best.empty() || sum < best_ms) best = name, best_ms = sum;
    } catch (std::exception const& error) {
      std::string const text = error.what();
      fmt::print("  {:<34} not here: {}\n", name, text.substr(0, text.find('\n')));
    }
  }
  context.setSDPUseMath(true), context.setSDPUseFlash(true), context.setSDPUseMemEfficient(true), context.setSDPUseCuDNN(true);
  auto const chosen = time_of([&] {
    at::NoGradGuard const no_grad;
    at::scaled_dot_product_attention(q, k, v);
  });
  fmt::print("  {:<34} {:>9.3f} (what LibTorch takes when all are allowed)\n  fastest forward and backward: {}\n", "free choice",
             chosen.median_ms, best.empty() ? "none" : best);
}

int run(std::int64_t samples) {
  if (c10::cuda::device_count() == 0) {
    std::fprintf(stderr, "gpu_kernels: no CUDA device can be used; run it on a machine with a GPU and its driver\n");
    return 1;
  }
  if (!model::cuda::takes(at::zeros({1}, at::kCUDA))) {
    std::fprintf(stderr, "gpu_kernels: this program was built without kernels (no nvcc then); build it with CUDA's nvcc installed\n");
    return 1;
  }
  copy_bytes_per_second = copy_bandwidth();
  fmt::print("  a copy within the device moves {:.0f} GB/s (read and written)\n", copy_bytes_per_second * 1e-9);
  head_line();
  operators(samples);
  pictures(samples);
  optimizer();
  attention(samples);
  if (!all_agree) std::fprintf(stderr, "gpu_kernels: a result is not ATen's: see the column 'differs'\n");
  return all_agree ? 0 : 1;
}

}  // namespace
}  // namespace duoflow::benchmark

int main(int argc, char** argv) {
  std::int64_t const samples = argc > 1 ? std::atoll(argv[1]) : 2;
  if (argc > 2 || samples < 1) {
    std::fprintf(stderr, "usage: gpu_kernels [SAMPLES]   samples per step, 1 or more, default 2\n");
    return 2;
  }
  try {
    return duoflow::benchmark::run(samples);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "gpu_kernels: %s\n", error.what());
    return 1;
  }
}
