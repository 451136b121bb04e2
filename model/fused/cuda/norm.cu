#include "model/fused/cuda/columns.h"
#include "model/fused/cuda/launch.h"
#include "model/fused/cuda/norm_row.h"

namespace duoflow::model::kernels {
namespace {

struct NormSizes {
  int rows, rows_of_group, width;
};

NormSizes sizes_of(NormRows const& shape) {
  return {gpu::narrow_index("rows", shape.groups * shape.rows), gpu::narrow_index("rows", shape.rows),
          gpu::narrow_index("columns", shape.width)};
}

// A warp a row.
template <typename Out, int N, int kHeld>
__global__ void norm_forward_kernel(NormSizes n, float const* x, float const* weight, float const* shift, float eps, Out* y,
                                    float* moments) {
  int const row = gpu::block_index() * gpu::warps() + gpu::warp();
  if (row >= n.rows) return;
  std::int64_t const place = static_cast<std::int64_t>(row) * n.width,
                     of_group = static_cast<std::int64_t>(row / n.rows_of_group) * n.width;
  Row<float, N, kHeld> const in(x + place, n.width);
  normalize(in, n.width, weight == nullptr ? nullptr : weight + of_group, shift == nullptr ? nullptr : shift + of_group, eps, y + place,
            moments + 2 * static_cast<std::int64_t>(row));
}

template <typename Out, int N, int kHeld, int kSums>
__global__ void norm_backward_kernel(NormSizes n, int blocks_of_group, float const* x, float const* weight, float const* moments,
                                     Out const* dy, float* dx, float* partials) {
  int const group = gpu::block_index() / blocks_of_group, block = gpu::block_index() % blocks_of_group;
  float const* const w_row = weight == nullptr ? nullptr : weight + static_cast<std::int64_t>(group) * n.width;
  ColumnSums<N, kHeld, kSums> sums(partials + static_cast<std::int64_t>(gpu::block_index()) * kSums * n.width, n.width);
  for (int r = block * gpu::warps() + gpu::warp(); r < n.rows_of_group; r += blocks_of_group * gpu::warps()) {
    std::int64_t const row = static_cast<std::int64_t>(group) * n.rows_of_group + r, place = row * n.width;
    Row<float, N, kHeld> const in(x + place, n.width);
    Row<Out, N, kHeld> const out(dy + place, n.width);
    normalize_back(in, out, n.width, w_row, moments + 2 * row, sums,
                   [&](int column, int, float const(&values)[N]) { gpu::store<N>(values, dx + place + column); });
  }
  sums.finish();
}

template <typename Out>
void norm_forward_of(float const* x, float const* weight, float const* shift, float eps, Out* y, float* moments, NormRows const& shape,
                     void* stream) {
  NormSizes const n = sizes_of(shape);
  bool const packed = gpu::packs_fit<kPack>(x, n.width) && gpu::packs_fit<kPack>(weight, n.width) &&
                      gpu::packs_fit<kPack>(shift, n.width) && gpu::packs_fit<kPack>(y, n.width);
  with_packs<Out>(packed, n.width, [&](auto pack, auto held) {
    gpu::launch("norm_forward", norm_forward_kernel<Out, pack(), held()>, gpu::ceil_div(n.rows, kWarpsOfBlock),
                kWarpsOfBlock * gpu::kWarpSize, 0, stream, n, x, weight, shift, eps, y, moments);
  });
}

template <typename Out>
void norm_backward_of(float const* x, float const* weight, float const* moments, Out const* dy, float* dx, int sums, float* totals,
                      float* workspace, NormRows const& shape, void* stream) {
  NormSizes const n = sizes_of(shape);
  if (n.rows == 0 && sums == 0) return;
  bool const packed = gpu::packs_fit<kPack>(x, n.width) && gpu::packs_fit<kPack>(weight, n.width) && gpu::packs_fit<kPack>(dy, n.width) &&
                      gpu::packs_fit<kPack>(dx, n.width) && gpu::packs_fit<kPack>(workspace, n.width);
  with_packs<Out>(packed, n.width, [&](auto pack, auto held) {
    constexpr int kWarps = summing_warps(held());
    std::int64_t const blocks = summing_blocks(shape.groups, shape.rows, kWarps);
    auto const start = [&](auto kernel) {
      std::size_t const shared = held() > 0 ? static_cast<std::size_t>(sums) * static_cast<std::size_t>(n.width) * sizeof(float) : 0;
      gpu::launch("norm_backward", kernel, shape.groups * blocks, kWarps * gpu::kWarpSize, shared, stream, n, static_cast<int>(blocks), x,
                  weight, moments, dy, dx, workspace);
    };
    if (sums == 0)
      start(norm_backward_kernel<Out, pack(), held(), 0>);
    else if (sums == 1)
      start(norm_backward_kernel<Out, pack(), held(), 1>);
    else
      start(norm_backward_kernel<Out, pack(), held(), 2>);
    if (sums > 0) sum_partials(workspace, shape.groups, blocks, sums * shape.width, totals, stream);
  });
}

}  // namespace

void norm_forward(float const* x, float const* weight, float const* shift, float eps, void* y, Number number, float* moments,
                  NormRows const& shape, void* stream) {
  if (number == Number::bf16)
    norm_forward_of(x, weight, shift, eps, static_cast<gpu::Bf16*>(y), moments, shape, stream);
  else
    norm_forward_of(x, weight, shift, eps, static_cast<float*>(y), moments, shape, stream);
}

std::int64_t norm_workspace(NormRows const& shape, int sums) {
  return sums == 0 ? 0 : summing_workspace(shape.groups, shape.rows, sums * shape.width);
}

void norm_backward(float const* x, float const* weight, float const* moments, void const* dy, Number number, float* dx, int sums,
                   float* totals, float* workspace, NormRows const& shape, void* stream) {
  if (number == Number::bf16)
    norm_backward_of(x, weight, moments, static_cast<gpu::Bf16 const*>(dy), dx, sums, totals, workspace, shape, stream);
  else
    norm_backward_of(x, weight, moments, static_cast<float const*>(dy), dx, sums, totals, workspace, shape, stream);
}

}  // namespace duoflow::model::kernels
