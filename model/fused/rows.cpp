#include "model/fused/rows.h"

#include <cstring>

namespace duoflow::model::rows {
namespace {

Arithmetic const& best_arithmetic() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  bool const avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return avx512_arithmetic;
  if (avx2) return avx2_arithmetic;
#endif
  return plain_arithmetic;
}

std::uint16_t const* bits(void const* x) { return static_cast<std::uint16_t const*>(x); }
std::uint16_t* bits(void* x) { return static_cast<std::uint16_t*>(x); }

}  // namespace

Arithmetic const& arithmetic() {
  static Arithmetic const& best = best_arithmetic();
  return best;
}

void load(void const* from, c10::ScalarType type, float* to, std::int64_t n) {
  if (type == c10::kBFloat16) arithmetic().widen(bits(from), to, n);
  else std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

void store(float const* from, c10::ScalarType type, void* to, std::int64_t n) {
  if (type == c10::kBFloat16) arithmetic().narrow(from, bits(to), n);
  else if (from != to) std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));  // else made in its place
}

void gelu_back(c10::ScalarType type, void const* x, void* g, void* y, std::int64_t n) {
  if (type == c10::kBFloat16) arithmetic().gelu_back_bf16(bits(x), bits(g), bits(y), n);
  else arithmetic().gelu_back(static_cast<float const*>(x), static_cast<float*>(g), static_cast<float*>(y), n);
}

}  // namespace duoflow::model::rows
