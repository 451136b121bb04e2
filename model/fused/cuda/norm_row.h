#pragma once
// The norm of a row by a warp, and back (norm.h), for the kernels that have one: norm.cu, add_norm.cu. For .cu files. Every
// lane of the warp calls; pointers are to the row's first column, weight and shift may be null.

#include "model/fused/cuda/columns.h"

namespace duoflow::model::kernels {

// y, and moments [2]. The variance is that of centred values: the difference of squares would lose the digits of a large mean.
template <int N, int kHeld, typename Out>
__device__ inline void normalize(Row<float, N, kHeld> const& in, int width, float const* weight, float const* shift, float eps, Out* y,
                                 float* moments) {
  float sum = 0, squares = 0;
  for_columns<N, kHeld>(width, [&](int column, int i) {
    float v[N];
    in.get(column, i, v);
#pragma unroll
    for (int k = 0; k < N; ++k) sum += v[k];
  });
  float const count = static_cast<float>(width), mean = gpu::sum_over_lanes(sum) / count;
  for_columns<N, kHeld>(width, [&](int column, int i) {
    float v[N];
    in.get(column, i, v);
#pragma unroll
    for (int k = 0; k < N; ++k) squares += (v[k] - mean) * (v[k] - mean);
  });
  float const inverse = 1 / sqrtf(gpu::sum_over_lanes(squares) / count + eps);
  if (gpu::lane() == 0) {
    moments[0] = mean;
    moments[1] = inverse;
  }
  for_columns<N, kHeld>(width, [&](int column, int i) {
    float v[N], w[N], s[N];
    in.get(column, i, v);
    if (weight != nullptr) gpu::load<N>(weight + column, w);
    if (shift != nullptr) gpu::load<N>(shift + column, s);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      v[k] = (v[k] - mean) * inverse;
      if (weight != nullptr) v[k] *= w[k];
      if (shift != nullptr) v[k] += s[k];
    }
    gpu::store<N>(v, y + column);
  });
}

// put(column, i, dx) for each pack of dx = (dy w - mean(dy w) - x_hat mean(dy w x_hat)) / deviation. Of the sums that there
// are, the first adds dy x_hat, the weight's gradient, the second dy, the shift's.
template <int N, int kHeld, int kSums, typename Out, typename Put>
__device__ inline void normalize_back(Row<float, N, kHeld> const& in, Row<Out, N, kHeld> const& out, int width, float const* weight,
                                      float const* moments, ColumnSums<N, kHeld, kSums>& sums, Put const& put) {
  float const mean = moments[0], inverse = moments[1];
  // hat: x_hat; g: dy; wg: dy w.
  auto const take = [&](int column, int i, float(&hat)[N], float(&g)[N], float(&wg)[N]) {
    in.get(column, i, hat);
    out.get(column, i, g);
    if (weight != nullptr) gpu::load<N>(weight + column, wg);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      hat[k] = (hat[k] - mean) * inverse;
      wg[k] = weight != nullptr ? wg[k] * g[k] : g[k];
    }
  };
  float sum = 0, slope = 0;
  for_columns<N, kHeld>(width, [&](int column, int i) {
    float hat[N], g[N], wg[N];
    take(column, i, hat, g, wg);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      sum += wg[k];
      slope += wg[k] * hat[k];
      hat[k] *= g[k];
    }
    if constexpr (kSums > 0) sums.add(0, column, i, hat);
    if constexpr (kSums > 1) sums.add(1, column, i, g);
  });
  float const count = static_cast<float>(width);
  sum = gpu::sum_over_lanes(sum) / count;
  slope = gpu::sum_over_lanes(slope) / count;
  for_columns<N, kHeld>(width, [&](int column, int i) {
    float hat[N], g[N], wg[N];
    take(column, i, hat, g, wg);
#pragma unroll
    for (int k = 0; k < N; ++k) wg[k] = inverse * (wg[k] - sum - hat[k] * slope);
    put(column, i, wg);
  });
}

}  // namespace duoflow::model::kernels
