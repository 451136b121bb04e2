#pragma once
// How a warp goes over a row, and how rows are added up column by column. For .cu files.
//
// The lanes of a warp share a row in packs of N neighbouring columns, a warp's width apart. Where the row's width is known
// to fit, a lane holds its packs in registers (kHeld of them) and memory is read once; else kHeld is 0 and each pass reads
// again, mostly from cache.

#include <algorithm>
#include <type_traits>

#include "gpu/kernel.h"

namespace duoflow::model::kernels {

constexpr int kPack = 4;  // fp32 numbers of 16 bytes
constexpr int kWarpsOfBlock = 8;

// body(column, i) for the i-th pack of this lane.
template <int N, int kHeld, typename Body>
__device__ inline void for_columns(int width, Body const& body) {
  int const first = gpu::lane() * N;
  if constexpr (kHeld > 0) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      int const column = first + i * gpu::kWarpSize * N;
      if (column < width) body(column, i);
    }
  } else {
    int i = 0;
    for (int column = first; column < width; column += gpu::kWarpSize * N) body(column, i++);
  }
}

template <typename T, int N, int kHeld>
class Row {
 public:
  __device__ Row(T const* row, int width) : row_(row) {
    if constexpr (kHeld > 0) for_columns<N, kHeld>(width, [&](int column, int i) { gpu::load<N>(row_ + column, held_[i]); });
  }
  // Of numbers that compute(column, values) gives, and that are left in `row`.
  template <typename Compute>
  __device__ Row(T* row, int width, Compute const& compute) : row_(row) {
    static_assert(std::is_same_v<T, float>, "what is held is what memory has");
    for_columns<N, kHeld>(width, [&](int column, int i) {
      float values[N];
      compute(column, values);
      gpu::store<N>(values, row + column);
      if constexpr (kHeld > 0) {
#pragma unroll
        for (int k = 0; k < N; ++k) held_[i][k] = values[k];
      }
    });
  }
  __device__ void get(int column, int i, float (&values)[N]) const {
    if constexpr (kHeld > 0) {
#pragma unroll
      for (int k = 0; k < N; ++k) values[k] = held_[i][k];
    } else {
      gpu::load<N>(row_ + column, values);
    }
  }

 private:
  T const* row_;
  float held_[kHeld > 0 ? kHeld : 1][N];
};

// Sums over the rows that a block sees, kSums rows of `width` columns, which finish() leaves in partial [kSums, width]. With
// packs held, each warp adds in registers and the warps' sums are added in order through shared memory (that many floats);
// without, a block is one warp and adds in `partial` itself.
template <int N, int kHeld, int kSums>
class ColumnSums {
 public:
  __device__ ColumnSums(float* partial, int width) : partial_(partial), width_(width) {
    if constexpr (kSums > 0) {
      for_columns<N, kHeld>(width_, [&](int column, int i) {
        float const zero[N] = {};
#pragma unroll
        for (int s = 0; s < kSums; ++s) {
          if constexpr (kHeld > 0)
            set(s, i, zero);
          else
            gpu::store<N>(zero, partial_ + s * width_ + column);
        }
      });
    }
  }
  __device__ void add(int s, int column, int i, float const (&values)[N]) {
    if constexpr (kHeld > 0) {
#pragma unroll
      for (int k = 0; k < N; ++k) sums_[i][s][k] += values[k];
    } else {
      add_to(partial_ + s * width_ + column, values);
    }
  }
  // Every thread of the block calls.
  __device__ void finish() {
    if constexpr (kHeld > 0 && kSums > 0) {
      float* const shared = gpu::shared_memory<float>();
      for (int w = 0; w < gpu::warps(); ++w) {
        if (gpu::warp() == w) {
          for_columns<N, kHeld>(width_, [&](int column, int i) {
#pragma unroll
            for (int s = 0; s < kSums; ++s) {
              float* const place = shared + s * width_ + column;
              if (w == 0)
                gpu::store<N>(sums_[i][s], place);
              else
                add_to(place, sums_[i][s]);
            }
          });
        }
        __syncthreads();
      }
      for (int c = gpu::thread_index(); c < kSums * width_; c += gpu::threads()) partial_[c] = shared[c];
    }
  }

 private:
  __device__ void set(int s, int i, float const (&values)[N]) {
#pragma unroll
    for (int k = 0; k < N; ++k) sums_[i][s][k] = values[k];
  }
  __device__ static void add_to(float* place, float const (&values)[N]) {
    float sum[N];
    gpu::load<N>(place, sum);
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] += values[k];
    gpu::store<N>(sum, place);
  }

  float* partial_;
  int width_;
  float sums_[kHeld > 0 ? kHeld : 1][kSums > 0 ? kSums : 1][N];
};

// visit(N, kHeld) as integral constants, for rows of this width that may be taken in packs of kPack or not. Held only for T
// bf16, which is what trains fast, and up to 1024 columns: a program carries each kernel for each GPU. With kLeast and kMost,
// the least and the most packs that are held, a kernel of many variants may do without some.
template <typename T, int kLeast = 2, int kMost = 8, typename Visit>
void with_packs(bool packed, std::int64_t width, Visit const& visit) {
  auto const n = std::integral_constant<int, kPack>();
  std::int64_t const packs = gpu::ceil_div(width, kPack * gpu::kWarpSize);
  if (!packed) return visit(std::integral_constant<int, 1>(), std::integral_constant<int, 0>());
  if constexpr (!std::is_same_v<T, float>) {
    if constexpr (kLeast <= 2)
      if (packs <= 2) return visit(n, std::integral_constant<int, 2>());
    if (packs <= 6) return visit(n, std::integral_constant<int, 6>());
    if constexpr (kMost >= 8)
      if (packs <= 8) return visit(n, std::integral_constant<int, 8>());
  }
  visit(n, std::integral_constant<int, 0>());
}

// Blocks of a group that add up `rows`, by the warps that a block has.
constexpr int summing_warps(int held) { return held > 0 ? kWarpsOfBlock : 1; }
inline std::int64_t summing_blocks(std::int64_t groups, std::int64_t rows, int warps) {
  return std::clamp<std::int64_t>(gpu::ceil_div(rows, warps), 1,
                                  std::max<std::int64_t>(1, gpu::kSummingBlocks * kWarpsOfBlock / warps / groups));
}
// Floats that the blocks write, whichever way they take.
inline std::int64_t summing_workspace(std::int64_t groups, std::int64_t rows, std::int64_t columns) {
  return groups * summing_blocks(groups, rows, 1) * columns;
}

// totals [groups, columns] = the sum over blocks, in a fixed order, of partials [groups, blocks, columns].
void sum_partials(float const* partials, std::int64_t groups, std::int64_t blocks, std::int64_t columns, float* totals, void* stream);

}  // namespace duoflow::model::kernels
