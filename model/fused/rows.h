#pragma once
// Arithmetic on rows of fp32 numbers, in one pass each, for the fused operators of the CPU. Compiled for several vector
// units; the one that the processor has is chosen when the program starts. Sums go by sixteen lanes and then pairwise,
// whatever the unit, but products may be fused with additions: other units may give other last bits, as ATen's do.

#include <cstdint>

#include <c10/core/ScalarType.h>

namespace duoflow::model::rows {

// n numbers of type fp32 or bf16; rounds to nearest, ties to even.
void load(void const* from, c10::ScalarType type, float* to, std::int64_t n);
void store(float const* from, c10::ScalarType type, void* to, std::int64_t n);

struct Moments {
  float mean = 0, inverse_deviation = 0;  // 1 / sqrt(variance + eps)
};
Moments moments(float const* x, std::int64_t n, float eps);
// y = (x - mean) / deviation * weight + shift; shift may be null.
void normalize(float const* x, Moments m, float const* weight, float const* shift, float* y, std::int64_t n);
// dx from dy; dweight += dy x_normalized, dshift += dy (both may be null).
void normalize_back(float const* x, Moments m, float const* weight, float const* dy, float* dx, float* dweight, float* dshift,
                    std::int64_t n);

// inverse_rms = 1 / sqrt(mean(x^2) + eps); y = x inverse_rms gain factor.
float rms(float const* x, float const* gain, float factor, float eps, float* y, std::int64_t n);
// dx from dy; dgain += dy x inverse_rms factor (may be null).
void rms_back(float const* x, float inverse_rms, float const* gain, float factor, float const* dy, float* dx, float* dgain, std::int64_t n);

void scale(float const* x, float factor, float* y, std::int64_t n);  // y = x factor
void add_product(float const* x, float const* gate, float const* y, float* out, std::int64_t n);  // out = x + gate y
// dy = g gate; dgate += g y (may be null).
void add_product_back(float const* g, float const* gate, float const* y, float* dy, float* dgate, std::int64_t n);
void add(float const* x, float* sum, std::int64_t n);  // sum += x

}  // namespace duoflow::model::rows
