#pragma once
// What CUDA kernels here are written in: threads of a warp, packs of numbers that are loaded at once, sums over lanes,
// launches. For .cu files alone; includes no LibTorch. The same source runs on a CPU behind tests/support/cuda_emulator.h.

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#elif !defined(DUOFLOW_CUDA_EMULATOR)
#error "a kernel is compiled by nvcc, or behind tests/support/cuda_emulator.h"
#endif

namespace duoflow::gpu {

using Bf16 = __nv_bfloat16;

constexpr int kWarpSize = 32;

#if defined(__CUDACC__)
// The most blocks of a kernel that adds up rows: enough for two on each of 132 or 108 processors, twice over, where a block
// costs a row of workspace. Of no GPU's size, so that another one sums in the same order.
constexpr std::int64_t kSummingBlocks = 512;
// The most blocks of a kernel whose blocks start with work of their own, before threads take one pack after another.
constexpr std::int64_t kStridingBlocks = 4096;

// kernel<<<grid, block, shared, stream>>>(arguments...), which throws std::runtime_error when it cannot start. Waits for
// nothing: an error in the kernel itself shows at a later call, as everywhere in CUDA.
template <typename... Parameters, typename... Arguments>
void launch(char const* name, void (*kernel)(Parameters...), std::int64_t grid, int block, std::size_t shared_bytes, void* stream,
            Arguments... arguments) {
  if (grid == 0) return;
  kernel<<<static_cast<unsigned>(grid), static_cast<unsigned>(block), shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  cudaError_t const error = cudaGetLastError();
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string("the CUDA kernel ") + name + " did not start (" + cudaGetErrorString(error) + ", grid " +
                           std::to_string(grid) + " x " + std::to_string(block) +
                           "): run with CUDA_LAUNCH_BLOCKING=1 if an earlier kernel may have failed");
}

// The shared memory that the launch asked for.
template <typename T>
__device__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char duoflow_shared[];
  return reinterpret_cast<T*>(duoflow_shared);
}
#endif

__device__ inline int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ inline int threads() { return static_cast<int>(blockDim.x); }
__device__ inline int block_index() { return static_cast<int>(blockIdx.x); }
__device__ inline int blocks() { return static_cast<int>(gridDim.x); }
__device__ inline int lane() { return thread_index() % kWarpSize; }
__device__ inline int warp() { return thread_index() / kWarpSize; }
__device__ inline int warps() { return threads() / kWarpSize; }

// Of each `lanes` neighbouring lanes (a power of two), with the same bits in all of them. Every lane of the warp calls.
__device__ inline float sum_over_lanes(float value, int lanes = kWarpSize) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffU, value, offset);
  return value;
}

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(Bf16 value) { return __bfloat162float(value); }
template <typename T>
__device__ inline T rounded(float value) {
  if constexpr (sizeof(T) == sizeof(float))
    return value;
  else
    return __float2bfloat16_rn(value);
}

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

// N numbers at an address that is a multiple of their size: one instruction up to 16 bytes.
template <int N, typename T>
__device__ inline void load(T const* from, float (&to)[N]) {
  auto const pack = *reinterpret_cast<Pack<T, N> const*>(from);
#pragma unroll
  for (int k = 0; k < N; ++k) to[k] = to_float(pack.values[k]);
}

template <int N, typename T>
__device__ inline void store(float const (&from)[N], T* to) {
  Pack<T, N> pack;
#pragma unroll
  for (int k = 0; k < N; ++k) pack.values[k] = rounded<T>(from[k]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// Whether packs of N can be taken from there, rows of `stride` elements apart.
template <int N, typename T>
bool packs_fit(T const* address, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(address) % (sizeof(T) * N) == 0 && stride % N == 0;
}

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Indices of rows and columns are 32 bits wide, which dividing them wants; places are 64.
inline int narrow_index(char const* what, std::int64_t count) {
  if (count < 0 || count > 0x7fffffff)
    throw std::invalid_argument(std::string("a CUDA kernel was given ") + std::to_string(count) + " " + what +
                                ", it takes 0 to 2147483647");
  return static_cast<int>(count);
}

}  // namespace duoflow::gpu
