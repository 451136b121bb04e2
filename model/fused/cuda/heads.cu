// A head is shared by as many neighbouring lanes as it has packs (a power of two, 8 for 64 numbers of bf16), so that a
// warp reads whole lines of the projection and each head goes out as one piece.

#include "model/fused/cuda/columns.h"
#include "model/fused/cuda/launch.h"

namespace duoflow::model::kernels {
namespace {

struct HeadsSizes {
  int tokens, parts, heads, width;
  int count;  // samples x tokens x parts x heads
  int lanes;  // of a head
};

// Where head `index` of the projection lies in its part.
struct HeadPlace {
  int row, part, head, sample, token;
  __device__ HeadPlace(HeadsSizes const& n, int index)
      : row(index / (n.parts * n.heads)),
        part(index / n.heads % n.parts),
        head(index % n.heads),
        sample(row / n.tokens),
        token(row % n.tokens) {}
};

struct HeadsIn {
  float const* gains[2];
  float factor, eps;
};

template <typename T>
struct HeadsOut {
  T* parts[3];
};

// The gain of a part, null for none. No indexed array: that would live in local memory.
__device__ inline float const* gain_of(HeadsIn const& in, int part) { return part == 0 ? in.gains[0] : part == 1 ? in.gains[1] : nullptr; }

// body(column, i) for the packs of this lane of its head.
template <int N, int kHeld, typename Body>
__device__ inline void for_head_columns(HeadsSizes const& n, Body const& body) {
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    int const column = (gpu::lane() % n.lanes + i * n.lanes) * N;
    if (column < n.width) body(column, i);
  }
}

template <typename T, int N, int kHeld>
__global__ void heads_forward_kernel(HeadsSizes n, HeadsIn in, T const* projected, HeadsOut<T> out, float* inverses) {
  int const index = (gpu::block_index() * gpu::threads() + gpu::thread_index()) / n.lanes;
  bool const exists = index < n.count;  // lanes of a warp stay together: they add up over each other
  HeadPlace const place(n, exists ? index : 0);
  float const* const gain = gain_of(in, place.part);
  float const factor = place.part == 0 ? in.factor : 1;
  float x[kHeld][N], squares = 0;
  for_head_columns<N, kHeld>(n, [&](int column, int i) {
    if (!exists) return;
    gpu::load<N>(projected + static_cast<std::int64_t>(index) * n.width + column, x[i]);
#pragma unroll
    for (int k = 0; k < N; ++k) squares += x[i][k] * x[i][k];
  });
  squares = gpu::sum_over_lanes(squares, n.lanes);
  if (!exists) return;
  float const inverse = gain == nullptr ? 1 : 1 / sqrtf(squares / static_cast<float>(n.width) + in.eps);
  if (gain != nullptr && gpu::lane() % n.lanes == 0)
    inverses[(static_cast<std::int64_t>(place.row) * 2 + place.part) * n.heads + place.head] = inverse;
  T* const to = (place.part == 0   ? out.parts[0]
                 : place.part == 1 ? out.parts[1]
                                   : out.parts[2]) +
                (static_cast<std::int64_t>(place.row) * n.heads + place.head) * n.width;
  for_head_columns<N, kHeld>(n, [&](int column, int i) {
#pragma unroll
    for (int k = 0; k < N; ++k) x[i][k] *= gain == nullptr ? factor : inverse * factor * gain[column + k];
    gpu::store<N>(x[i], to + column);
  });
}

struct HeadsGradients {
  HeadsGradient parts[3];
};

// With `partials` [blocks, 2, width] also sums dy x / rms factor over the heads that the block sees: each lane of its columns,
// then over the heads of a warp, then over warps in order through shared memory, 2 width floats.
template <typename T, int N, int kHeld>
__global__ void heads_backward_kernel(HeadsSizes n, HeadsIn in, T const* projected, float const* inverses, HeadsGradients gradients,
                                      T* dprojected, float* partials) {
  float sums[2][kHeld][N] = {};
  int const step = gpu::blocks() * gpu::threads() / n.lanes;
  int const first = (gpu::block_index() * gpu::threads() + gpu::thread_index()) / n.lanes;
  int const of_warp = (gpu::block_index() * gpu::threads() + gpu::warp() * gpu::kWarpSize) / n.lanes;  // the first head of its lanes
  for (int shift = 0; of_warp + shift < n.count; shift += step) {
    int const index = first + shift;
    bool const exists = index < n.count;
    HeadPlace const place(n, exists ? index : 0);
    float const* const gain = gain_of(in, place.part);
    float const factor = place.part == 0 ? in.factor : 1;
    HeadsGradient const from = place.part == 0 ? gradients.parts[0] : place.part == 1 ? gradients.parts[1] : gradients.parts[2];
    T const* const dy_head =
        static_cast<T const*>(from.data) + place.sample * from.sample + place.head * from.head + place.token * from.token;
    std::int64_t const in_projection = static_cast<std::int64_t>(index) * n.width;
    bool const reads = exists && from.data != nullptr, normed = reads && gain != nullptr;
    float dy[kHeld][N] = {}, x[kHeld][N] = {}, w[kHeld][N] = {}, slope = 0;
    for_head_columns<N, kHeld>(n, [&](int column, int i) {
      if (reads) gpu::load<N>(dy_head + column, dy[i]);
      if (!normed) return;
      gpu::load<N>(projected + in_projection + column, x[i]);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        w[i][k] = gain[column + k];
        slope += dy[i][k] * w[i][k] * x[i][k];
      }
    });
    slope = gpu::sum_over_lanes(slope, n.lanes);
    float const inverse = normed ? inverses[(static_cast<std::int64_t>(place.row) * 2 + place.part) * n.heads + place.head] : 1;
    slope *= factor * inverse * inverse / static_cast<float>(n.width);
    if (!exists) continue;
    for_head_columns<N, kHeld>(n, [&](int column, int i) {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        float const sum = dy[i][k] * x[i][k] * (inverse * factor);
        if (place.part == 0)
          sums[0][i][k] += sum;
        else
          sums[1][i][k] += sum;  // of values too, whose x is 0 here
        dy[i][k] = normed ? inverse * (dy[i][k] * w[i][k] * factor - x[i][k] * slope) : dy[i][k] * factor;
      }
      gpu::store<N>(dy[i], dprojected + in_projection + column);
    });
  }
  if (partials == nullptr) return;
  float* const shared = gpu::shared_memory<float>();
#pragma unroll
  for (int p = 0; p < 2; ++p)
#pragma unroll
    for (int i = 0; i < kHeld; ++i)
#pragma unroll
      for (int k = 0; k < N; ++k)
        for (int offset = n.lanes; offset < gpu::kWarpSize; offset *= 2)
          sums[p][i][k] += __shfl_xor_sync(0xffffffffU, sums[p][i][k], offset);
  for (int w = 0; w < gpu::warps(); ++w) {
    if (gpu::warp() == w && gpu::lane() < n.lanes) {
      for_head_columns<N, kHeld>(n, [&](int column, int i) {
#pragma unroll
        for (int p = 0; p < 2; ++p)
#pragma unroll
          for (int k = 0; k < N; ++k) {
            float& to = shared[p * n.width + column + k];
            to = w == 0 ? sums[p][i][k] : to + sums[p][i][k];
          }
      });
    }
    __syncthreads();
  }
  for (int c = gpu::thread_index(); c < 2 * n.width; c += gpu::threads())
    partials[static_cast<std::int64_t>(gpu::block_index()) * 2 * n.width + c] = shared[c];
}

constexpr int kThreads = kWarpsOfBlock * gpu::kWarpSize;

template <int N>
HeadsSizes sizes_of(HeadsShape const& shape) {
  if (shape.width < 1 || shape.width > kLargestHead || shape.parts < 1 || shape.parts > 3)
    throw std::invalid_argument("heads of " + std::to_string(shape.width) + " numbers in " + std::to_string(shape.parts) +
                                " parts; the CUDA kernels take 1 to 256 numbers and 1 to 3 parts");
  HeadsSizes n{gpu::narrow_index("tokens", shape.tokens),
               static_cast<int>(shape.parts),
               gpu::narrow_index("heads", shape.heads),
               static_cast<int>(shape.width),
               gpu::narrow_index("heads", shape.samples * shape.tokens * shape.parts * shape.heads),
               1};
  while (n.lanes < gpu::kWarpSize && n.lanes * N < n.width) n.lanes *= 2;
  // The kernels count up to a grid's step past the end.
  gpu::narrow_index("lanes for heads", (static_cast<std::int64_t>(n.count) + gpu::kSummingBlocks * kThreads) * n.lanes);
  return n;
}

// visit(N, packs that a lane holds) as integral constants.
template <typename T, typename Visit>
void with_head_packs(bool packed, Visit const& visit) {
  constexpr int n = 16 / sizeof(T);
  if (packed)
    visit(std::integral_constant<int, n>(), std::integral_constant<int, static_cast<int>(kLargestHead) / n / gpu::kWarpSize>());
  else
    visit(std::integral_constant<int, 1>(), std::integral_constant<int, static_cast<int>(kLargestHead) / gpu::kWarpSize>());
}

template <typename T>
void heads_forward_of(T const* projected, float const* const (&gains)[2], float factor, float eps, void* const (&out)[3], float* inverse,
                      HeadsShape const& shape, void* stream) {
  constexpr int kLargestPack = 16 / sizeof(T);
  HeadsOut<T> const parts{{static_cast<T*>(out[0]), static_cast<T*>(out[1]), static_cast<T*>(out[2])}};
  bool packed = gpu::packs_fit<kLargestPack>(projected, shape.width);
  for (T* part : parts.parts) packed = packed && gpu::packs_fit<kLargestPack>(part, shape.width);
  with_head_packs<T>(packed, [&](auto pack, auto held) {
    HeadsSizes const n = sizes_of<pack()>(shape);
    gpu::launch("heads_forward", heads_forward_kernel<T, pack(), held()>,
                gpu::ceil_div(static_cast<std::int64_t>(n.count) * n.lanes, kThreads), kThreads, 0, stream, n,
                HeadsIn{{gains[0], gains[1]}, factor, eps}, projected, parts, inverse);
  });
}

template <typename T>
void heads_backward_of(T const* projected, float const* const (&gains)[2], float factor, float const* inverse,
                       HeadsGradient const (&gradients)[3], T* dprojected, float* totals, float* workspace, HeadsShape const& shape,
                       void* stream) {
  constexpr int kLargestPack = 16 / sizeof(T);
  bool packed = gpu::packs_fit<kLargestPack>(projected, shape.width) && gpu::packs_fit<kLargestPack>(dprojected, shape.width);
  HeadsGradients all{};
  for (int p = 0; p < 3; ++p) {
    HeadsGradient const& one = all.parts[p] = gradients[p];
    for (std::int64_t const stride : {one.sample, one.head, one.token})
      packed = packed && gpu::packs_fit<kLargestPack>(static_cast<T const*>(one.data), stride);
  }
  with_head_packs<T>(packed, [&](auto pack, auto held) {
    HeadsSizes const n = sizes_of<pack()>(shape);
    std::int64_t const blocks =
        summing_blocks(1, gpu::ceil_div(static_cast<std::int64_t>(n.count) * n.lanes, gpu::kWarpSize), kWarpsOfBlock);
    gpu::launch("heads_backward", heads_backward_kernel<T, pack(), held()>, blocks, kThreads,
                totals == nullptr ? 0 : 2 * static_cast<std::size_t>(n.width) * sizeof(float), stream, n,
                HeadsIn{{gains[0], gains[1]}, factor, 0}, projected, inverse, all, dprojected, totals == nullptr ? nullptr : workspace);
    if (totals != nullptr) sum_partials(workspace, 1, blocks, 2 * shape.width, totals, stream);
  });
}

}  // namespace

void heads_forward(void const* projected, Number number, float const* const (&gains)[2], float factor, float eps, void* const (&out)[3],
                   float* inverse, HeadsShape const& shape, void* stream) {
  if (number == Number::bf16)
    heads_forward_of(static_cast<gpu::Bf16 const*>(projected), gains, factor, eps, out, inverse, shape, stream);
  else
    heads_forward_of(static_cast<float const*>(projected), gains, factor, eps, out, inverse, shape, stream);
}

std::int64_t heads_workspace(HeadsShape const& shape) { return gpu::kSummingBlocks * 2 * shape.width; }

void heads_backward(void const* projected, Number number, float const* const (&gains)[2], float factor, float const* inverse,
                    HeadsGradient const (&gradients)[3], void* dprojected, float* totals, float* workspace, HeadsShape const& shape,
                    void* stream) {
  if (number == Number::bf16)
    heads_backward_of(static_cast<gpu::Bf16 const*>(projected), gains, factor, inverse, gradients, static_cast<gpu::Bf16*>(dprojected),
                      totals, workspace, shape, stream);
  else
    heads_backward_of(static_cast<float const*>(projected), gains, factor, inverse, gradients, static_cast<float*>(dprojected), totals,
                      workspace, shape, stream);
}

}  // namespace duoflow::model::kernels
