#include "model/fused/cuda/launch.h"

#include <algorithm>
#include <type_traits>

#include "gpu/kernel.h"

namespace duoflow::model::kernels {
namespace {

constexpr float kInverseRoot2 = 0.70710678118654752F, kInverseRoot2Pi = 0.39894228040143268F;
constexpr int kGeluThreads = 256;

__device__ inline float normal_cdf(float x) { return 0.5F * (1 + erff(x * kInverseRoot2)); }
// A pack a thread; what is left over goes to the first threads, a number each.
template <int N, typename Body>
__device__ inline void for_packs(std::int64_t count, Body const& body) {
  std::int64_t const index = static_cast<std::int64_t>(gpu::block_index()) * gpu::threads() + gpu::thread_index(), packs = count / N;
  if (index < packs) body(std::integral_constant<int, N>(), index * N);
  if (index < count - packs * N) body(std::integral_constant<int, 1>(), packs * N + index);
}

template <typename T, int N>
__global__ void gelu_forward_kernel(T const* x, T* y, std::int64_t count) {
  for_packs<N>(count, [&](auto pack, std::int64_t place) {
    constexpr int n = decltype(pack)::value;
    float v[n];
    gpu::load<n>(x + place, v);
#pragma unroll
    for (int k = 0; k < n; ++k) v[k] *= normal_cdf(v[k]);
    gpu::store<n>(v, y + place);
  });
}

template <typename T, int N>
__global__ void gelu_backward_kernel(T const* x, T* g, T* y, std::int64_t count) {
  for_packs<N>(count, [&](auto pack, std::int64_t place) {
    constexpr int n = decltype(pack)::value;
    float v[n], slope[n];
    gpu::load<n>(x + place, v);
    gpu::load<n>(g + place, slope);
#pragma unroll
    for (int k = 0; k < n; ++k) {
      float const below = normal_cdf(v[k]);
      slope[k] *= below + v[k] * kInverseRoot2Pi * expf(-0.5F * v[k] * v[k]);
      v[k] *= below;
    }
    gpu::store<n>(slope, g + place);
    if (y != nullptr) gpu::store<n>(v, y + place);
  });
}

// Blocks for a pack a thread, and for what is left over.
std::int64_t blocks_for(std::int64_t count, int pack) {
  return gpu::ceil_div(std::max<std::int64_t>(count / pack, count % pack), kGeluThreads);
}

template <typename T>
void gelu_forward_of(T const* x, T* y, std::int64_t count, void* stream) {
  constexpr int n = 16 / sizeof(T);
  bool const packed = gpu::packs_fit<n>(x, 0) && gpu::packs_fit<n>(y, 0);
  gpu::launch("gelu_forward", packed ? gelu_forward_kernel<T, n> : gelu_forward_kernel<T, 1>, blocks_for(count, packed ? n : 1),
              kGeluThreads, 0, stream, x, y, count);
}

template <typename T>
void gelu_backward_of(T const* x, T* g, T* y, std::int64_t count, void* stream) {
  constexpr int n = 16 / sizeof(T);
  bool const packed = gpu::packs_fit<n>(x, 0) && gpu::packs_fit<n>(g, 0) && (y == nullptr || gpu::packs_fit<n>(y, 0));
  gpu::launch("gelu_backward", packed ? gelu_backward_kernel<T, n> : gelu_backward_kernel<T, 1>, blocks_for(count, packed ? n : 1),
              kGeluThreads, 0, stream, x, g, y, count);
}

}  // namespace

void gelu_forward(void const* x, Number number, void* y, std::int64_t count, void* stream) {
  if (number == Number::bf16)
    gelu_forward_of(static_cast<gpu::Bf16 const*>(x), static_cast<gpu::Bf16*>(y), count, stream);
  else
    gelu_forward_of(static_cast<float const*>(x), static_cast<float*>(y), count, stream);
}

void gelu_backward(void const* x, void* g, Number number, void* y, std::int64_t count, void* stream) {
  if (number == Number::bf16)
    gelu_backward_of(static_cast<gpu::Bf16 const*>(x), static_cast<gpu::Bf16*>(g), static_cast<gpu::Bf16*>(y), count, stream);
  else
    gelu_backward_of(static_cast<float const*>(x), static_cast<float*>(g), static_cast<float*>(y), count, stream);
}

}  // namespace duoflow::model::kernels
