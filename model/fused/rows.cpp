#include "model/fused/rows.h"

#include <bit>
#include <cmath>
#include <cstring>

// Sanitizers run before the addresses of cloned functions are known.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define DUOFLOW_VECTOR __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#else
#define DUOFLOW_VECTOR
#endif

namespace duoflow::model::rows {
namespace {

constexpr std::int64_t kLanes = 16;

inline float sum_of(float const (&lanes)[kLanes]) {
  float s[kLanes];
  std::memcpy(s, lanes, sizeof(s));
  for (std::int64_t width = kLanes / 2; width > 0; width /= 2)
    for (std::int64_t i = 0; i < width; ++i) s[i] += s[i + width];
  return s[0];
}

DUOFLOW_VECTOR void widen(std::uint16_t const* __restrict from, float* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(from[i]) << 16);
}

DUOFLOW_VECTOR void narrow(float const* __restrict from, std::uint16_t* __restrict to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    auto const bits = std::bit_cast<std::uint32_t>(from[i]);
    std::uint32_t const rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    to[i] = static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
  }
}

DUOFLOW_VECTOR float sum(float const* __restrict x, std::int64_t n) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += x[i + j];
  for (; i < n; ++i) lanes[i % kLanes] += x[i];
  return sum_of(lanes);
}

DUOFLOW_VECTOR float sum_of_squares(float const* __restrict x, float from, std::int64_t n) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t j = 0; j < kLanes; ++j) {
      float const centred = x[i + j] - from;
      lanes[j] += centred * centred;
    }
  for (; i < n; ++i) lanes[i % kLanes] += (x[i] - from) * (x[i] - from);
  return sum_of(lanes);
}

// sum a b (c - from)
DUOFLOW_VECTOR float dot(float const* __restrict a, float const* __restrict b, float const* __restrict c, float from, std::int64_t n) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j] * (c[i + j] - from);
  for (; i < n; ++i) lanes[i % kLanes] += a[i] * b[i] * (c[i] - from);
  return sum_of(lanes);
}

DUOFLOW_VECTOR float product_sum(float const* __restrict a, float const* __restrict b, std::int64_t n) {
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  for (; i < n; ++i) lanes[i % kLanes] += a[i] * b[i];
  return sum_of(lanes);
}

DUOFLOW_VECTOR void add_scaled_products(float const* __restrict a, float const* __restrict b, float factor, float* __restrict sum,
                                        std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) sum[i] += a[i] * b[i] * factor;
}

DUOFLOW_VECTOR void add_normalized(float const* __restrict x, Moments m, float const* __restrict dy, float* __restrict dweight,
                                   std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) dweight[i] += dy[i] * ((x[i] - m.mean) * m.inverse_deviation);
}

}  // namespace

void load(void const* from, c10::ScalarType type, float* to, std::int64_t n) {
  if (type == c10::kBFloat16) widen(static_cast<std::uint16_t const*>(from), to, n);
  else std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

void store(float const* from, c10::ScalarType type, void* to, std::int64_t n) {
  if (type == c10::kBFloat16) narrow(from, static_cast<std::uint16_t*>(to), n);
  else std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

Moments moments(float const* x, std::int64_t n, float eps) {
  float const count = static_cast<float>(n), mean = sum(x, n) / count;
  return {mean, 1 / std::sqrt(sum_of_squares(x, mean, n) / count + eps)};
}

DUOFLOW_VECTOR void normalize(float const* __restrict x, Moments m, float const* __restrict weight, float const* __restrict shift,
                              float* __restrict y, std::int64_t n) {
  if (shift == nullptr) {
    for (std::int64_t i = 0; i < n; ++i) y[i] = (x[i] - m.mean) * m.inverse_deviation * weight[i];
  } else {
    for (std::int64_t i = 0; i < n; ++i) y[i] = (x[i] - m.mean) * m.inverse_deviation * weight[i] + shift[i];
  }
}

namespace {

DUOFLOW_VECTOR void centred_back(float const* __restrict x, Moments m, float const* __restrict weight, float const* __restrict dy,
                                 float mean_dy, float slope, float* __restrict dx, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i)
    dx[i] = m.inverse_deviation * (dy[i] * weight[i] - mean_dy - (x[i] - m.mean) * m.inverse_deviation * slope);
}

DUOFLOW_VECTOR void rms_dx(float const* __restrict x, float inverse, float const* __restrict gain, float factor,
                           float const* __restrict dy, float slope, float* __restrict dx, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) dx[i] = inverse * (dy[i] * gain[i] * factor - x[i] * slope);
}

DUOFLOW_VECTOR void rms_y(float const* __restrict x, float const* __restrict gain, float factor, float* __restrict y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * factor * gain[i];
}

}  // namespace

void normalize_back(float const* x, Moments m, float const* weight, float const* dy, float* dx, float* dweight, float* dshift,
                    std::int64_t n) {
  float const count = static_cast<float>(n), sum_dy = product_sum(dy, weight, n);
  float const slope = dot(dy, weight, x, m.mean, n) * m.inverse_deviation;
  centred_back(x, m, weight, dy, sum_dy / count, slope / count, dx, n);
  if (dweight != nullptr) add_normalized(x, m, dy, dweight, n);
  if (dshift != nullptr) add(dy, dshift, n);
}

float rms(float const* x, float const* gain, float factor, float eps, float* y, std::int64_t n) {
  float const inverse = 1 / std::sqrt(sum_of_squares(x, 0, n) / static_cast<float>(n) + eps);
  rms_y(x, gain, inverse * factor, y, n);
  return inverse;
}

void rms_back(float const* x, float inverse, float const* gain, float factor, float const* dy, float* dx, float* dgain, std::int64_t n) {
  float const slope = factor * dot(dy, gain, x, 0, n) * inverse * inverse / static_cast<float>(n);
  rms_dx(x, inverse, gain, factor, dy, slope, dx, n);
  if (dgain != nullptr) add_scaled_products(dy, x, inverse * factor, dgain, n);
}

DUOFLOW_VECTOR void scale(float const* __restrict x, float factor, float* __restrict y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

DUOFLOW_VECTOR void add_product(float const* __restrict x, float const* __restrict gate, float const* __restrict y, float* __restrict out,
                                std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = x[i] + gate[i] * y[i];
}

DUOFLOW_VECTOR void add_product_back(float const* __restrict g, float const* __restrict gate, float const* __restrict y,
                                     float* __restrict dy, float* __restrict dgate, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) dy[i] = g[i] * gate[i];
  if (dgate != nullptr)
    for (std::int64_t i = 0; i < n; ++i) dgate[i] += g[i] * y[i];
}

DUOFLOW_VECTOR void add(float const* __restrict x, float* __restrict sum, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) sum[i] += x[i];
}

}  // namespace duoflow::model::rows
