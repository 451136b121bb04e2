#include "model/fused/cuda/columns.h"

namespace duoflow::model::kernels {
namespace {

// A block has 32 columns of a group; its warps take every eighth block's row, and their sums are added in order.
__global__ void sum_partials_kernel(float const* partials, int blocks, int columns, float* totals) {
  int const column_blocks = (columns + gpu::kWarpSize - 1) / gpu::kWarpSize;
  int const group = gpu::block_index() / column_blocks;
  int const column = gpu::block_index() % column_blocks * gpu::kWarpSize + gpu::lane();
  float sum = 0;
  if (column < columns) {
    float const* const of_group = partials + static_cast<std::int64_t>(group) * blocks * columns + column;
    for (int b = gpu::warp(); b < blocks; b += gpu::warps()) sum += of_group[static_cast<std::int64_t>(b) * columns];
  }
  float* const shared = gpu::shared_memory<float>();
  shared[gpu::thread_index()] = sum;
  __syncthreads();
  if (gpu::warp() > 0 || column >= columns) return;
  for (int w = 1; w < gpu::warps(); ++w) sum += shared[w * gpu::kWarpSize + gpu::lane()];
  totals[static_cast<std::int64_t>(group) * columns + column] = sum;
}

}  // namespace

void sum_partials(float const* partials, std::int64_t groups, std::int64_t blocks, std::int64_t columns, float* totals, void* stream) {
  constexpr int threads = kWarpsOfBlock * gpu::kWarpSize;
  gpu::launch("sum_partials", sum_partials_kernel, groups * gpu::ceil_div(columns, gpu::kWarpSize), threads, threads * sizeof(float),
              stream, partials, gpu::narrow_index("blocks", blocks), gpu::narrow_index("columns", columns), totals);
}

}  // namespace duoflow::model::kernels
