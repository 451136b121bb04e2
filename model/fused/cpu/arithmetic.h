#pragma once
// A table of rows.h's functions, one for each vector unit that they are compiled for (arithmetic.inc).

#include <cstdint>

namespace duoflow::model::rows {

struct Moments {
  float mean = 0, inverse_deviation = 0;  // 1 / sqrt(variance + eps)
};

struct Arithmetic {
  void (*widen)(std::uint16_t const*, float*, std::int64_t);
  void (*narrow)(float const*, std::uint16_t*, std::int64_t);
  Moments (*moments)(float const*, std::int64_t, float);
  void (*normalize)(float const*, Moments, float const*, float const*, float*, std::int64_t);
  void (*normalize_back)(float const*, Moments, float const*, float const*, float*, float*, float*, std::int64_t);
  void (*rms_of_heads)(float const*, float const*, float, float, float*, float*, std::int64_t, std::int64_t);
  void (*rms_of_heads_back)(float const*, float const*, float const*, float, float const*, float*, float*, std::int64_t, std::int64_t);
  void (*scale)(float const*, float, float*, std::int64_t);
  void (*add_product)(float const*, float const*, float const*, float*, std::int64_t);
  void (*sum)(float const*, float const*, float*, std::int64_t);
  void (*add_product_back)(float const*, float const*, float const*, float*, float*, std::int64_t);
  void (*add)(float const*, float*, std::int64_t);
  void (*gelu_back)(float const*, float*, float*, std::int64_t);
  void (*gelu_back_bf16)(std::uint16_t const*, std::uint16_t*, std::uint16_t*, std::int64_t);
  void (*pluecker_rays)(float const*, float const*, std::int64_t, std::int64_t, std::int64_t, float*);
};

extern Arithmetic const plain_arithmetic;
extern Arithmetic const avx2_arithmetic, avx512_arithmetic;  // on x86-64: AVX2 and FMA; AVX-512 F, BW, DQ, VL

}  // namespace duoflow::model::rows
