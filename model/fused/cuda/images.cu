#include <algorithm>

#include "model/fused/cuda/columns.h"
#include "model/fused/cuda/launch.h"

namespace duoflow::model::kernels {
namespace {

constexpr int kImageThreads = 256;

// A block adds up its share of a sample, threads one number after another, and leaves it, over `count`, in partials [samples, blocks].
template <int N>
__global__ void square_error_kernel(float const* image, float const* target, int blocks_of_sample, std::int64_t count, float* partials) {
  int const sample = gpu::block_index() / blocks_of_sample, block = gpu::block_index() % blocks_of_sample;
  float const *const a = image + sample * count, *const b = target + sample * count;
  std::int64_t const step = static_cast<std::int64_t>(blocks_of_sample) * gpu::threads() * N;
  float sum = 0;
  for (std::int64_t i = (static_cast<std::int64_t>(block) * gpu::threads() + gpu::thread_index()) * N; i < count; i += step) {
    float x[N], y[N];
    gpu::load<N>(a + i, x);
    gpu::load<N>(b + i, y);
#pragma unroll
    for (int k = 0; k < N; ++k) sum += (x[k] - y[k]) * (x[k] - y[k]);
  }
  float* const shared = gpu::shared_memory<float>();
  sum = gpu::sum_over_lanes(sum);
  if (gpu::lane() == 0) shared[gpu::warp()] = sum;
  __syncthreads();
  if (gpu::thread_index() > 0) return;
  for (int w = 1; w < gpu::warps(); ++w) sum += shared[w];
  partials[gpu::block_index()] = sum / static_cast<float>(count);
}

template <int N>
__global__ void square_error_backward_kernel(float const* image, float const* target, float const* gradient, std::int64_t packs_of_sample,
                                             std::int64_t packs, float* dimage) {
  std::int64_t const pack = static_cast<std::int64_t>(gpu::block_index()) * gpu::threads() + gpu::thread_index();
  if (pack >= packs) return;
  float const factor = 2 * gradient[pack / packs_of_sample] / static_cast<float>(packs_of_sample * N);
  float x[N], y[N];
  gpu::load<N>(image + pack * N, x);
  gpu::load<N>(target + pack * N, y);
#pragma unroll
  for (int k = 0; k < N; ++k) x[k] = factor * (x[k] - y[k]);
  gpu::store<N>(x, dimage + pack * N);
}

// A thread a pixel of a view: neighbours write neighbouring numbers of each of the six planes.
__global__ void rays_kernel(float const* c2w, float const* intrinsics, int height, int width, float* rays) {
  int const pixels = height * width, blocks_of_view = (pixels + gpu::threads() - 1) / gpu::threads();
  int const view = gpu::block_index() / blocks_of_view;
  int const pixel = gpu::block_index() % blocks_of_view * gpu::threads() + gpu::thread_index();
  if (pixel >= pixels) return;
  float const *const pose = c2w + view * 16, *const k = intrinsics + view * 4;
  float const x = (static_cast<float>(pixel % width) + 0.5F - k[2]) / k[0], y = (static_cast<float>(pixel / width) + 0.5F - k[3]) / k[1];
  float d[3], o[3];
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    d[i] = pose[4 * i] * x + pose[4 * i + 1] * y + pose[4 * i + 2];
    o[i] = pose[4 * i + 3];
  }
  float const length = sqrtf(d[0] * d[0] + d[1] * d[1] + d[2] * d[2]);
#pragma unroll
  for (int i = 0; i < 3; ++i) d[i] /= length;
  float* const to = rays + static_cast<std::int64_t>(view) * 6 * pixels + pixel;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    int const j = (i + 1) % 3, l = (i + 2) % 3;
    to[static_cast<std::int64_t>(i) * pixels] = o[j] * d[l] - o[l] * d[j];
    to[static_cast<std::int64_t>(i + 3) * pixels] = d[i];
  }
}

std::int64_t blocks_of_sample(std::int64_t samples, std::int64_t count) {
  return std::clamp<std::int64_t>(gpu::ceil_div(count, kImageThreads * kPack), 1,
                                  std::max<std::int64_t>(1, gpu::kSummingBlocks / std::max<std::int64_t>(samples, 1)));
}

}  // namespace

std::int64_t mean_square_error_workspace(std::int64_t samples, std::int64_t count) { return samples * blocks_of_sample(samples, count); }

void mean_square_error_forward(float const* image, float const* target, std::int64_t samples, std::int64_t count, float* errors,
                               float* workspace, void* stream) {
  bool const packed = gpu::packs_fit<kPack>(image, count) && gpu::packs_fit<kPack>(target, count);
  std::int64_t const blocks = blocks_of_sample(samples, count);
  gpu::launch("square_error", packed ? square_error_kernel<kPack> : square_error_kernel<1>, samples * blocks, kImageThreads,
              kImageThreads / gpu::kWarpSize * sizeof(float), stream, image, target, static_cast<int>(blocks), count, workspace);
  sum_partials(workspace, samples, blocks, 1, errors, stream);
}

void mean_square_error_backward(float const* image, float const* target, float const* gradient, std::int64_t samples, std::int64_t count,
                                float* dimage, void* stream) {
  bool const packed = gpu::packs_fit<kPack>(image, count) && gpu::packs_fit<kPack>(target, count) && gpu::packs_fit<kPack>(dimage, count);
  std::int64_t const of_sample = count / (packed ? kPack : 1), packs = samples * of_sample;
  gpu::launch("square_error_backward", packed ? square_error_backward_kernel<kPack> : square_error_backward_kernel<1>,
              gpu::ceil_div(packs, kImageThreads), kImageThreads, 0, stream, image, target, gradient, of_sample, packs, dimage);
}

void pluecker_rays(float const* c2w, float const* intrinsics, std::int64_t views, std::int64_t height, std::int64_t width, float* rays,
                   void* stream) {
  std::int64_t const pixels = gpu::narrow_index("pixels", height * width);
  gpu::launch("pluecker_rays", rays_kernel, views * gpu::ceil_div(pixels, kImageThreads), kImageThreads, 0, stream, c2w, intrinsics,
              static_cast<int>(height), static_cast<int>(width), rays);
}

}  // namespace duoflow::model::kernels
