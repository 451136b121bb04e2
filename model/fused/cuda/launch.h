#pragma once
// The CUDA kernels of the fused operators: plain pointers to device memory and a stream (cudaStream_t). Each computes what
// its operator says (norm.h, heads.h, gated_add.h, add_norm.h), in fp32, in one pass over memory where a row fits the registers. They
// start and return; nothing waits, allocates or is added atomically: the same bits every time, and on every GPU for which
// the compiler makes the same instructions. Sums over rows go through a workspace of the caller's, fp32 numbers whose
// count the *_workspace functions give.
//
// Throw std::runtime_error where a launch fails, std::invalid_argument for sizes that they cannot take.

#include <cstdint>

namespace duoflow::model::kernels {

enum class Number { fp32, bf16 };

// ---- norm: y = (x - mean) / sqrt(var + eps) * weight + shift ----
struct NormRows {
  std::int64_t groups = 1, rows = 0, width = 0;  // groups x rows of x; a group has one row of weight, and of shift
};
// x, weight, shift fp32, weight and shift may be null; y in `number`; moments [groups x rows, 2]: mean, 1 / deviation.
void norm_forward(float const* x, float const* weight, float const* shift, float eps, void* y, Number number, float* moments,
                  NormRows const& shape, void* stream);
// sums: columns to add up, 0 none, 1 of the weight, 2 of the shift too. totals [groups, sums, width].
std::int64_t norm_workspace(NormRows const& shape, int sums);
void norm_backward(float const* x, float const* weight, float const* moments, void const* dy, Number number, float* dx, int sums,
                   float* totals, float* workspace, NormRows const& shape, void* stream);

// ---- heads ----
constexpr std::int64_t kLargestHead = 256;
struct HeadsShape {
  std::int64_t samples = 0, tokens = 0, parts = 0, heads = 0, width = 0;  // parts: 1 to 3; width: up to kLargestHead
};
// projected [samples, tokens, parts, heads, width]; gains[p] [width] fp32 of the first two parts, null for no norm; out[p]
// [samples, tokens, heads, width] (attention's kernels give their result in the layout of the queries, and in this one it is
// what the projection behind them reads); inverse [samples x tokens, 2, heads] of the parts that have a gain. factor: on part 0.
void heads_forward(void const* projected, Number number, float const* const (&gains)[2], float factor, float eps, void* const (&out)[3],
                   float* inverse, HeadsShape const& shape, void* stream);
// A gradient [samples, heads, tokens, width] with any strides (in elements) but 1 within a head; null data: none, zeros.
struct HeadsGradient {
  void const* data = nullptr;
  std::int64_t sample = 0, head = 0, token = 0;
};
std::int64_t heads_workspace(HeadsShape const& shape);
// totals [2, width]: gradients of the gains, of both parts; null for none (and no workspace).
void heads_backward(void const* projected, Number number, float const* const (&gains)[2], float factor, float const* inverse,
                    HeadsGradient const (&gradients)[3], void* dprojected, float* totals, float* workspace, HeadsShape const& shape,
                    void* stream);

// ---- gated_add: out = x + gate y ----
struct GatedShape {
  std::int64_t samples = 0, tokens = 0, width = 0;
  std::int64_t x_sample = 0, x_token = 0;  // strides of x in elements; everything else is contiguous
};
// x, out fp32; gate [samples, width] fp32, null for 1; y in `number`.
void gated_add_forward(float const* x, float const* gate, void const* y, Number number, float* out, GatedShape const& shape, void* stream);
std::int64_t gated_add_workspace(GatedShape const& shape);
// dy = g gate; dgate [samples, width] = sum over tokens of g y, null for none (and no workspace).
void gated_add_backward(float const* g, float const* gate, void const* y, Number number, void* dy, float* dgate, float* workspace,
                        GatedShape const& shape, void* stream);

// ---- add_norm: sum = x + gate y, out = norm(sum) ----
struct AddNormShape {
  GatedShape rows;
  std::int64_t weights = 1;  // rows of weight, and of shift: one for all, or one a sample
  bool gated = false;
  // Rows are added up by sample where a weight or a gate is a sample's, else all of them: by group.
  std::int64_t groups() const { return gated || weights > 1 ? rows.samples : 1; }
};
// gate (none where the shape has none), x, y as gated_add takes them; weight, shift, eps, out, moments as norm. y and out
// both in `number`; sum fp32.
void add_norm_forward(float const* x, float const* gate, void const* y, Number number, float const* weight, float const* shift, float eps,
                      float* sum, void* out, float* moments, AddNormShape const& shape, void* stream);
// sums: columns to add up, 0 none, 1 of the weight, kAddNormSums of weight, shift and gate, which is 0 without a gate.
constexpr int kAddNormSums = 3;
std::int64_t add_norm_workspace(AddNormShape const& shape, int sums);
struct AddNormKept {  // by the forward; y may be null without a gate
  float const *sum, *weight, *moments, *gate;
  void const* y;
};
// d_sum fp32, may be null; d_out in `number`. dx fp32; dy in `number`, null for none; totals [groups, sums, width].
void add_norm_backward(AddNormKept const& kept, float const* d_sum, void const* d_out, Number number, float* dx, void* dy, int sums,
                       float* totals, float* workspace, AddNormShape const& shape, void* stream);

// ---- gelu: y = x (1 + erf(x / sqrt 2)) / 2 ----
void gelu_forward(void const* x, Number number, void* y, std::int64_t count, void* stream);
// g becomes g dy/dx; y again, unless it is null.
void gelu_backward(void const* x, void* g, Number number, void* y, std::int64_t count, void* stream);

// ---- pictures, fp32 ----
// errors [samples]: the mean over `count` numbers of a sample of (image - target)^2. dimage from gradient [samples].
std::int64_t mean_square_error_workspace(std::int64_t samples, std::int64_t count);
void mean_square_error_forward(float const* image, float const* target, std::int64_t samples, std::int64_t count, float* errors,
                               float* workspace, void* stream);
void mean_square_error_backward(float const* image, float const* target, float const* gradient, std::int64_t samples, std::int64_t count,
                                float* dimage, void* stream);
// c2w [views, 4, 4], intrinsics [views, 4] -> rays [views, 6, height, width], as model/rays.h says.
void pluecker_rays(float const* c2w, float const* intrinsics, std::int64_t views, std::int64_t height, std::int64_t width, float* rays,
                   void* stream);

}  // namespace duoflow::model::kernels
