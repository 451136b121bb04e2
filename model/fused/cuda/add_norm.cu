#include "model/fused/cuda/columns.h"
#include "model/fused/cuda/launch.h"
#include "model/fused/cuda/norm_row.h"

namespace duoflow::model::kernels {
namespace {

struct AddNormSizes {
  int rows, rows_of_group, tokens, width;
  std::int64_t x_sample, x_token;
  int weight_stride;  // from a sample's row of weight, and of shift, to the next one's
};

AddNormSizes sizes_of(AddNormShape const& shape) {
  GatedShape const& rows = shape.rows;
  int const width = gpu::narrow_index("columns", rows.width), count = gpu::narrow_index("rows", rows.samples * rows.tokens);
  int const groups = gpu::narrow_index("groups", shape.groups());
  return {count,        groups == 0 ? 0 : count / groups, gpu::narrow_index("tokens", rows.tokens), width, rows.x_sample,
          rows.x_token, shape.weights > 1 ? width : 0};
}

__device__ inline float const* row_of(float const* rows, std::int64_t number, int stride) {
  return rows == nullptr ? nullptr : rows + number * stride;
}

// A warp a row.
template <typename T, int N, int kHeld>
__global__ void add_norm_forward_kernel(AddNormSizes n, float const* x, float const* gate, T const* y, float const* weight,
                                        float const* shift, float eps, float* sum, T* out, float* moments) {
  int const row = gpu::block_index() * gpu::warps() + gpu::warp();
  if (row >= n.rows) return;
  int const sample = row / n.tokens, token = row % n.tokens;
  std::int64_t const place = static_cast<std::int64_t>(row) * n.width;
  float const* const x_row = x + sample * n.x_sample + token * n.x_token;
  float const* const gate_row = row_of(gate, sample, n.width);
  Row<float, N, kHeld> const in(sum + place, n.width, [&](int column, float(&a)[N]) {
    float b[N], g[N];
    gpu::load<N>(x_row + column, a);
    gpu::load<N>(y + place + column, b);
    if (gate_row != nullptr) gpu::load<N>(gate_row + column, g);
#pragma unroll
    for (int k = 0; k < N; ++k) a[k] += gate_row != nullptr ? g[k] * b[k] : b[k];
  });
  normalize(in, n.width, row_of(weight, sample, n.weight_stride), row_of(shift, sample, n.weight_stride), eps, out + place,
            moments + 2 * static_cast<std::int64_t>(row));
}

// What add_norm_backward is given, for a kernel.
template <typename T>
struct AddNormBack {
  float const *sum, *weight, *moments, *gate;
  T const* y;
  float const* d_sum;
  T const* d_out;
  float* dx;
  T* dy;
};

// dx = d_sum + the norm's; dy = gate dx; the gate's gradient sums y dx.
template <typename T, int N, int kHeld, int kSums>
__global__ void add_norm_backward_kernel(AddNormSizes n, int blocks_of_group, AddNormBack<T> of, float* partials) {
  int const group = gpu::block_index() / blocks_of_group, block = gpu::block_index() % blocks_of_group;
  // A group of several samples has one row of weight and no gate.
  float const* const weight_row = row_of(of.weight, group, n.weight_stride);
  float const* const gate_row = row_of(of.gate, group, n.width);
  ColumnSums<N, kHeld, kSums> sums(partials + static_cast<std::int64_t>(gpu::block_index()) * kSums * n.width, n.width);
  for (int r = block * gpu::warps() + gpu::warp(); r < n.rows_of_group; r += blocks_of_group * gpu::warps()) {
    std::int64_t const row = static_cast<std::int64_t>(group) * n.rows_of_group + r, place = row * n.width;
    Row<float, N, kHeld> const in(of.sum + place, n.width);
    Row<T, N, kHeld> const out(of.d_out + place, n.width);
    normalize_back(in, out, n.width, weight_row, of.moments + 2 * row, sums, [&](int column, int i, float(&dx)[N]) {
      float other[N];
      if (of.d_sum != nullptr) {
        gpu::load<N>(of.d_sum + place + column, other);
#pragma unroll
        for (int k = 0; k < N; ++k) dx[k] += other[k];
      }
      gpu::store<N>(dx, of.dx + place + column);
      if constexpr (kSums == kAddNormSums) {
        if (gate_row != nullptr) {
          gpu::load<N>(of.y + place + column, other);
#pragma unroll
          for (int k = 0; k < N; ++k) other[k] *= dx[k];
          sums.add(2, column, i, other);
        }
      }
      if (gate_row != nullptr) {
        gpu::load<N>(gate_row + column, other);
#pragma unroll
        for (int k = 0; k < N; ++k) dx[k] *= other[k];
      }
      if (of.dy != nullptr) gpu::store<N>(dx, of.dy + place + column);
    });
  }
  sums.finish();
}

// Held up to 768 columns, in one size: three counts of sums times two types are kernels enough.
template <typename T, typename Visit>
void with_packs_of_add_norm(bool packed, std::int64_t width, Visit const& visit) {
  with_packs<T, 6, 6>(packed, width, visit);
}

template <typename T>
void add_norm_forward_of(float const* x, float const* gate, T const* y, float const* weight, float const* shift, float eps, float* sum,
                         T* out, float* moments, AddNormShape const& shape, void* stream) {
  AddNormSizes const n = sizes_of(shape);
  bool const packed = gpu::packs_fit<kPack>(x, n.x_sample) && gpu::packs_fit<kPack>(x, n.x_token) && gpu::packs_fit<kPack>(gate, n.width) &&
                      gpu::packs_fit<kPack>(y, n.width) && gpu::packs_fit<kPack>(weight, n.width) &&
                      gpu::packs_fit<kPack>(shift, n.width) && gpu::packs_fit<kPack>(sum, n.width) && gpu::packs_fit<kPack>(out, n.width);
  with_packs_of_add_norm<T>(packed, n.width, [&](auto pack, auto held) {
    gpu::launch("add_norm_forward", add_norm_forward_kernel<T, pack(), held()>, gpu::ceil_div(n.rows, kWarpsOfBlock),
                kWarpsOfBlock * gpu::kWarpSize, 0, stream, n, x, gate, y, weight, shift, eps, sum, out, moments);
  });
}

template <typename T>
void add_norm_backward_of(AddNormBack<T> const& of, int sums, float* totals, float* workspace, AddNormShape const& shape, void* stream) {
  AddNormSizes const n = sizes_of(shape);
  std::int64_t const groups = shape.groups();
  if (groups == 0 || (n.rows == 0 && sums == 0)) return;
  bool const packed =
      gpu::packs_fit<kPack>(of.sum, n.width) && gpu::packs_fit<kPack>(of.weight, n.width) && gpu::packs_fit<kPack>(of.gate, n.width) &&
      gpu::packs_fit<kPack>(of.y, n.width) && gpu::packs_fit<kPack>(of.d_sum, n.width) && gpu::packs_fit<kPack>(of.d_out, n.width) &&
      gpu::packs_fit<kPack>(of.dx, n.width) && gpu::packs_fit<kPack>(of.dy, n.width) && gpu::packs_fit<kPack>(workspace, n.width);
  with_packs_of_add_norm<T>(packed, n.width, [&](auto pack, auto held) {
    constexpr int kWarps = summing_warps(held());
    std::int64_t const blocks = summing_blocks(groups, n.rows_of_group, kWarps);
    auto const start = [&](auto kernel) {
      std::size_t const shared = held() > 0 ? static_cast<std::size_t>(sums) * static_cast<std::size_t>(n.width) * sizeof(float) : 0;
      gpu::launch("add_norm_backward", kernel, groups * blocks, kWarps * gpu::kWarpSize, shared, stream, n, static_cast<int>(blocks), of,
                  workspace);
    };
    if (sums == 0)
      start(add_norm_backward_kernel<T, pack(), held(), 0>);
    else if (sums == 1)
      start(add_norm_backward_kernel<T, pack(), held(), 1>);
    else
      start(add_norm_backward_kernel<T, pack(), held(), kAddNormSums>);
    if (sums > 0) sum_partials(workspace, groups, blocks, static_cast<std::int64_t>(sums) * n.width, totals, stream);
  });
}

template <typename T>
AddNormBack<T> back_of(AddNormKept const& kept, float const* d_sum, void const* d_out, float* dx, void* dy) {
  return {kept.sum, kept.weight,        kept.moments, kept.gate, static_cast<T const*>(kept.y), d_sum, static_cast<T const*>(d_out),
          dx,       static_cast<T*>(dy)};
}

}  // namespace

void add_norm_forward(float const* x, float const* gate, void const* y, Number number, float const* weight, float const* shift, float eps,
                      float* sum, void* out, float* moments, AddNormShape const& shape, void* stream) {
  if (number == Number::bf16)
    add_norm_forward_of(x, gate, static_cast<gpu::Bf16 const*>(y), weight, shift, eps, sum, static_cast<gpu::Bf16*>(out), moments, shape,
                        stream);
  else
    add_norm_forward_of(x, gate, static_cast<float const*>(y), weight, shift, eps, sum, static_cast<float*>(out), moments, shape, stream);
}

std::int64_t add_norm_workspace(AddNormShape const& shape, int sums) {
  std::int64_t const groups = shape.groups();
  return sums == 0 || groups == 0 ? 0 : summing_workspace(groups, shape.rows.samples * shape.rows.tokens / groups, sums * shape.rows.width);
}

void add_norm_backward(AddNormKept const& kept, float const* d_sum, void const* d_out, Number number, float* dx, void* dy, int sums,
                       float* totals, float* workspace, AddNormShape const& shape, void* stream) {
  if (number == Number::bf16)
    add_norm_backward_of(back_of<gpu::Bf16>(kept, d_sum, d_out, dx, dy), sums, totals, workspace, shape, stream);
  else
    add_norm_backward_of(back_of<float>(kept, d_sum, d_out, dx, dy), sums, totals, workspace, shape, stream);
}

}  // namespace duoflow::model::kernels
