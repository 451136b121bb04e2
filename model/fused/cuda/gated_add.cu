#include "model/fused/cuda/columns.h"
#include "model/fused/cuda/launch.h"

namespace duoflow::model::kernels {
namespace {

struct GatedSizes {
  int rows, tokens, width;
  std::int64_t x_sample, x_token;
};

GatedSizes sizes_of(GatedShape const& shape) {
  return {gpu::narrow_index("rows", shape.samples * shape.tokens), gpu::narrow_index("tokens", shape.tokens),
          gpu::narrow_index("columns", shape.width), shape.x_sample, shape.x_token};
}

// A warp a row.
template <typename T, int N>
__global__ void gated_add_forward_kernel(GatedSizes n, float const* x, float const* gate, T const* y, float* out) {
  int const row = gpu::block_index() * gpu::warps() + gpu::warp();
  if (row >= n.rows) return;
  int const sample = row / n.tokens, token = row % n.tokens;
  std::int64_t const place = static_cast<std::int64_t>(row) * n.width;
  float const* const x_row = x + sample * n.x_sample + token * n.x_token;
  float const* const gate_row = gate == nullptr ? nullptr : gate + static_cast<std::int64_t>(sample) * n.width;
  for_columns<N, 0>(n.width, [&](int column, int) {
    float a[N], b[N], g[N];
    gpu::load<N>(x_row + column, a);
    gpu::load<N>(y + place + column, b);
    if (gate_row != nullptr) gpu::load<N>(gate_row + column, g);
#pragma unroll
    for (int k = 0; k < N; ++k) a[k] += gate_row != nullptr ? g[k] * b[k] : b[k];
    gpu::store<N>(a, out + place + column);
  });
}

template <typename T, int N, int kHeld, int kSums>
__global__ void gated_add_backward_kernel(GatedSizes n, int blocks_of_sample, float const* g, float const* gate, T const* y, T* dy,
                                          float* partials) {
  int const sample = gpu::block_index() / blocks_of_sample, block = gpu::block_index() % blocks_of_sample;
  float const* const gate_row = gate + static_cast<std::int64_t>(sample) * n.width;
  ColumnSums<N, kHeld, kSums> sums(partials + static_cast<std::int64_t>(gpu::block_index()) * kSums * n.width, n.width);
  for (int token = block * gpu::warps() + gpu::warp(); token < n.tokens; token += blocks_of_sample * gpu::warps()) {
    std::int64_t const place = (static_cast<std::int64_t>(sample) * n.tokens + token) * n.width;
    for_columns<N, kHeld>(n.width, [&](int column, int i) {
      float a[N], b[N], w[N];
      gpu::load<N>(g + place + column, a);
      gpu::load<N>(gate_row + column, w);
      if constexpr (kSums > 0) {
        gpu::load<N>(y + place + column, b);
#pragma unroll
        for (int k = 0; k < N; ++k) b[k] *= a[k];
        sums.add(0, column, i, b);
      }
#pragma unroll
      for (int k = 0; k < N; ++k) a[k] *= w[k];
      gpu::store<N>(a, dy + place + column);
    });
  }
  sums.finish();
}

template <typename T>
void gated_add_forward_of(float const* x, float const* gate, T const* y, float* out, GatedShape const& shape, void* stream) {
  GatedSizes const n = sizes_of(shape);
  bool const packed = gpu::packs_fit<kPack>(x, shape.x_sample) && gpu::packs_fit<kPack>(x, shape.x_token) &&
                      gpu::packs_fit<kPack>(gate, shape.width) && gpu::packs_fit<kPack>(y, shape.width) &&
                      gpu::packs_fit<kPack>(out, shape.width);
  auto const kernel = packed ? gated_add_forward_kernel<T, kPack> : gated_add_forward_kernel<T, 1>;
  gpu::launch("gated_add_forward", kernel, gpu::ceil_div(n.rows, kWarpsOfBlock), kWarpsOfBlock * gpu::kWarpSize, 0, stream, n, x, gate, y,
              out);
}

template <typename T>
void gated_add_backward_of(float const* g, float const* gate, T const* y, T* dy, float* dgate, float* workspace, GatedShape const& shape,
                           void* stream) {
  GatedSizes const n = sizes_of(shape);
  if (shape.samples == 0) return;
  bool const packed = gpu::packs_fit<kPack>(g, shape.width) && gpu::packs_fit<kPack>(gate, shape.width) &&
                      gpu::packs_fit<kPack>(y, shape.width) && gpu::packs_fit<kPack>(dy, shape.width) &&
                      gpu::packs_fit<kPack>(workspace, shape.width);
  with_packs<T>(packed, shape.width, [&](auto pack, auto held) {
    constexpr int kWarps = summing_warps(held());
    std::int64_t const blocks = summing_blocks(shape.samples, shape.tokens, kWarps);
    auto const start = [&](auto kernel, std::size_t shared) {
      gpu::launch("gated_add_backward", kernel, shape.samples * blocks, kWarps * gpu::kWarpSize, shared, stream, n,
                  static_cast<int>(blocks), g, gate, y, dy, workspace);
    };
    std::size_t const row = static_cast<std::size_t>(shape.width) * sizeof(float);
    if (dgate == nullptr)
      start(gated_add_backward_kernel<T, pack(), held(), 0>, 0);
    else
      start(gated_add_backward_kernel<T, pack(), held(), 1>, held() > 0 ? row : 0);
    if (dgate != nullptr) sum_partials(workspace, shape.samples, blocks, shape.width, dgate, stream);
  });
}

}  // namespace

void gated_add_forward(float const* x, float const* gate, void const* y, Number number, float* out, GatedShape const& shape, void* stream) {
  if (number == Number::bf16)
    gated_add_forward_of(x, gate, static_cast<gpu::Bf16 const*>(y), out, shape, stream);
  else
    gated_add_forward_of(x, gate, static_cast<float const*>(y), out, shape, stream);
}

std::int64_t gated_add_workspace(GatedShape const& shape) {
  return shape.samples == 0 ? 0 : summing_workspace(shape.samples, shape.tokens, shape.width);
}

void gated_add_backward(float const* g, float const* gate, void const* y, Number number, void* dy, float* dgate, float* workspace,
                        GatedShape const& shape, void* stream) {
  if (number == Number::bf16)
    gated_add_backward_of(g, gate, static_cast<gpu::Bf16 const*>(y), static_cast<gpu::Bf16*>(dy), dgate, workspace, shape, stream);
  else
    gated_add_backward_of(g, gate, static_cast<float const*>(y), static_cast<float*>(dy), dgate, workspace, shape, stream);
}

}  // namespace duoflow::model::kernels
