#pragma once
// Arithmetic on rows of fp32 numbers, in one pass each, for the fused operators of the CPU. Compiled for several vector
// units (cpu/); the best that the processor has is chosen once.

#include <cstdint>
#include <vector>

#include <c10/core/ScalarType.h>

#include "model/fused/cpu/arithmetic.h"

namespace duoflow::model::rows {

Arithmetic const& arithmetic();  // of this processor

// n numbers of type fp32 or bf16; rounds to nearest, ties to even.
void load(void const* from, c10::ScalarType type, float* to, std::int64_t n);
void store(float const* from, c10::ScalarType type, void* to, std::int64_t n);
// The numbers at `from`: themselves in fp32, else loaded into `room`.
inline float const* read(void const* from, c10::ScalarType type, float* room, std::int64_t n) {
  if (type == c10::kFloat) return static_cast<float const*>(from);
  load(from, type, room, n);
  return room;
}
// Where n numbers for `to` are made: there in fp32, else in `room`, from where store() takes them.
inline float* place(void* to, c10::ScalarType type, float* room) { return type == c10::kFloat ? static_cast<float*>(to) : room; }

// Room for n numbers, of this thread, with whatever is in it; kept for the next call with the same number.
template <int number>
float* room(std::int64_t n) {
  thread_local std::vector<float> kept;
  if (static_cast<std::int64_t>(kept.size()) < n) kept.resize(static_cast<std::size_t>(n));
  return kept.data();
}

inline Moments moments(float const* x, std::int64_t n, float eps) { return arithmetic().moments(x, n, eps); }
// y = (x - mean) / deviation * weight + shift; shift may be null.
inline void normalize(float const* x, Moments m, float const* weight, float const* shift, float* y, std::int64_t n) {
  arithmetic().normalize(x, m, weight, shift, y, n);
}
// dx from dy; dweight += dy x_normalized, dshift += dy (both may be null).
inline void normalize_back(float const* x, Moments m, float const* weight, float const* dy, float* dx, float* dweight, float* dshift,
                           std::int64_t n) {
  arithmetic().normalize_back(x, m, weight, dy, dx, dweight, dshift, n);
}

// Of `heads` heads of n numbers, one after another: inverse = 1 / sqrt(mean(x^2) + eps), of each; y = x inverse gain factor.
inline void rms_of_heads(float const* x, float const* gain, float factor, float eps, float* y, float* inverse, std::int64_t heads,
                         std::int64_t n) {
  arithmetic().rms_of_heads(x, gain, factor, eps, y, inverse, heads, n);
}
// dx from dy; dgain += dy x inverse factor (may be null).
inline void rms_of_heads_back(float const* x, float const* inverse, float const* gain, float factor, float const* dy, float* dx,
                              float* dgain, std::int64_t heads, std::int64_t n) {
  arithmetic().rms_of_heads_back(x, inverse, gain, factor, dy, dx, dgain, heads, n);
}

// y = x factor; out = x + gate y; out = x + y; sum += x.
inline void scale(float const* x, float factor, float* y, std::int64_t n) { arithmetic().scale(x, factor, y, n); }
inline void add_product(float const* x, float const* gate, float const* y, float* out, std::int64_t n) {
  arithmetic().add_product(x, gate, y, out, n);
}
inline void sum(float const* x, float const* y, float* out, std::int64_t n) { arithmetic().sum(x, y, out, n); }
inline void add(float const* x, float* sum, std::int64_t n) { arithmetic().add(x, sum, n); }
// dy = g gate; dgate += g y (may be null).
inline void add_product_back(float const* g, float const* gate, float const* y, float* dy, float* dgate, std::int64_t n) {
  arithmetic().add_product_back(g, gate, y, dy, dgate, n);
}

// y = x Phi(x), GELU in its exact form (Hendrycks and Gimpel 1606.08415), may be null; g *= its slope at x. Of fp32 or bf16.
void gelu_back(c10::ScalarType type, void const* x, void* g, void* y, std::int64_t n);

// Row `row` of a picture's rays, model/rays.h: of a row-major pose of 4 columns and fx, fy, cx, cy; out: the row in the
// first of six planes, which are `plane` numbers apart.
inline void pluecker_rays(float const* pose, float const* intrinsic, std::int64_t row, std::int64_t width, std::int64_t plane, float* out) {
  arithmetic().pluecker_rays(pose, intrinsic, row, width, plane, out);
}

}  // namespace duoflow::model::rows
