#pragma once
// One pass over a run of the flat buffers on a GPU: clipping, AdamW (Loshchilov and Hutter 1711.05101, as
// at::_fused_adamw_ computes it), the running average of sharded_adamw.h and the parameters in bf16. 28 bytes a parameter
// (gradient, parameter, two moments, of which three go back), 8 more with the average, 2 with bf16.
//
// Per element and with the rounding of each operation fixed (compiled without contraction to fused multiply-adds other
// than those written), so that slices of any cut have the same bits.

#include <cstdint>

namespace duoflow::dist::kernels {

struct AdamWRun {
  float* parameters = nullptr;
  float const* gradients = nullptr;
  float *exp_avg = nullptr, *exp_avg_sq = nullptr;
  float* average = nullptr;  // null: none
  void* bf16 = nullptr;      // null: none; the parameters as they are after the update
  std::int64_t count = 0;
};

// fp32 scalars on the device.
struct AdamWScalars {
  float const* learning_rate = nullptr;
  float const* found_inf = nullptr;        // 1: nothing is written
  float const* update_count = nullptr;     // this update included
  float const* average_weight = nullptr;   // average += weight (parameters - average)
  float const* gradient_factor = nullptr;  // on the gradients, which keep their values; null: 1
};

struct AdamWRule {
  double beta1 = 0.9, beta2 = 0.95, weight_decay = 0, eps = 1e-8;
  bool idle = false;  // parameters and moments stay as they are; the average goes on
};

// Throws std::runtime_error where the launch fails; does not wait.
void adamw_run(AdamWRun const& run, AdamWScalars const& scalars, AdamWRule const& rule, void* stream);

}  // namespace duoflow::dist::kernels
