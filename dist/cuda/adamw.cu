// Compiled with -fmad=false: see adamw.h.

#include "dist/cuda/adamw.h"

#include <algorithm>

#include "gpu/kernel.h"

namespace duoflow::dist::kernels {
namespace {

constexpr int kThreads = 256, kPack = 4;

// What all elements share, computed in fp64 by one thread of a block.
struct Shared {
  float step_size, inverse_root, decay;  // lr / (1 - beta1^n); sqrt(1 - beta2^n); lr weight_decay
};

struct Rule {
  double beta1, beta2, weight_decay;
  float eps;
  bool idle;
};

template <int N>
__device__ inline void update(AdamWRun const& run, Rule const& rule, Shared const& s, float factor, float weight, std::int64_t place) {
  float p[N];
  gpu::load<N>(run.parameters + place, p);
  if (!rule.idle) {
    float g[N], m[N], v[N];
    gpu::load<N>(run.gradients + place, g);
    gpu::load<N>(run.exp_avg + place, m);
    gpu::load<N>(run.exp_avg_sq + place, v);
    float const beta1 = static_cast<float>(rule.beta1), beta2 = static_cast<float>(rule.beta2);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      float const gradient = g[k] * factor, square = gradient * gradient;
      m[k] = fmaf(beta1, m[k], fmaf(-beta1, gradient, gradient));
      v[k] = fmaf(beta2, v[k], fmaf(-beta2, square, square));
      p[k] = fmaf(-s.decay, p[k], p[k]);
      p[k] -= s.step_size * m[k] / (sqrtf(v[k]) / s.inverse_root + rule.eps);
    }
    gpu::store<N>(p, run.parameters + place);
    gpu::store<N>(m, run.exp_avg + place);
    gpu::store<N>(v, run.exp_avg_sq + place);
  }
  if (run.average != nullptr) {
    float a[N];
    gpu::load<N>(run.average + place, a);
#pragma unroll
    for (int k = 0; k < N; ++k) a[k] += (p[k] - a[k]) * weight;
    gpu::store<N>(a, run.average + place);
  }
  if (run.bf16 != nullptr) gpu::store<N>(p, static_cast<gpu::Bf16*>(run.bf16) + place);
}

template <int N>
__global__ void adamw_kernel(AdamWRun run, AdamWScalars scalars, Rule rule) {
  if (*scalars.found_inf == 1) return;
  Shared* const shared = gpu::shared_memory<Shared>();
  if (gpu::thread_index() == 0) {
    double const n = *scalars.update_count, rate = *scalars.learning_rate;
    shared->step_size = static_cast<float>(rate / (1 - pow(rule.beta1, n)));
    shared->inverse_root = static_cast<float>(sqrt(1 - pow(rule.beta2, n)));
    shared->decay = static_cast<float>(rate * rule.weight_decay);
  }
  __syncthreads();
  Shared const s = *shared;
  float const factor = scalars.gradient_factor == nullptr ? 1 : *scalars.gradient_factor;
  float const weight = scalars.average_weight == nullptr ? 0 : *scalars.average_weight;
  std::int64_t const first = static_cast<std::int64_t>(gpu::block_index()) * gpu::threads() + gpu::thread_index();
  std::int64_t const step = static_cast<std::int64_t>(gpu::blocks()) * gpu::threads(), packs = run.count / N;
  for (std::int64_t i = first; i < packs; i += step) update<N>(run, rule, s, factor, weight, i * N);
  if (first < run.count - packs * N) update<1>(run, rule, s, factor, weight, packs * N + first);
}

}  // namespace

void adamw_run(AdamWRun const& run, AdamWScalars const& scalars, AdamWRule const& rule, void* stream) {
  bool packed = gpu::packs_fit<kPack>(static_cast<gpu::Bf16 const*>(run.bf16), 0);
  for (float const* pointer : {static_cast<float const*>(run.parameters), run.gradients, static_cast<float const*>(run.exp_avg),
                               static_cast<float const*>(run.exp_avg_sq), static_cast<float const*>(run.average)})
    packed = packed && gpu::packs_fit<kPack>(pointer, 0);
  int const pack = packed ? kPack : 1;
  gpu::launch("adamw", packed ? adamw_kernel<kPack> : adamw_kernel<1>,
              std::min(gpu::kStridingBlocks, gpu::ceil_div(run.count, kThreads * pack)), kThreads, sizeof(Shared), stream, run, scalars,
              Rule{rule.beta1, rule.beta2, rule.weight_decay, static_cast<float>(rule.eps), rule.idle});
}

}  // namespace duoflow::dist::kernels
