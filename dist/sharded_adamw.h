#pragma once
// ShardedAdamW: fused AdamW over the flat buffers, one call per owned run of equal hyper-parameters.
//
// Over a group of ranks every rank updates the slices it owns (owned_ranges) with moments of these alone, and an
// all-gather per bucket brings the parameters back: ZeRO-1 (Rajbhandari et al. 1910.02054). On a null communicator
// everything is owned and nothing is sent. The numbers are the same bit for bit: the update is per element, and slices
// are cut at 64 bytes (flat_buffer.h).
//
// Skips on the device: where `found_inf` is 1 parameters, moments, average and the update count keep their values
// (at::_fused_adamw_ neither advances nor reverts the count, so the count is advanced by 1 - found_inf here).
//
// With a decay a running average of the parameters follows them, of what is owned, in fp32:
//   average += w (parameters - average),   w = 1 - decay, with warm-up max(1 - decay, 9 / (9 + n)) at the n-th update.
// It is three roundings an element whatever the vector unit (a fused multiply-add on some elements only would give
// slices other bits), and takes the memory of the gradients, which are used up by then.
//
// On CUDA, where the program has the kernel (cuda/adamw.h), all of it is one pass per run, the factor that clips too, and
// the rounding to bf16 where no rank has to wait for others' parameters first.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/communicator.h"
#include "dist/flat_buffer.h"

namespace duoflow::dist {

struct AverageOptions {
  double decay = 0;  // 0: no average
  bool warmup = true;
};

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  std::vector<double> weight_decay;   // by group
  std::vector<double> rate_factor{};  // by group, on the learning rate; empty: 1 for all
  AverageOptions average{};
  bool rounds = false;  // keeps the parameters in bf16 beside the fp32 ones
};

class ShardedAdamW {
 public:
  // `shared_over`: the ranks that share the update; the buffer's slices must be a multiple of them.
  ShardedAdamW(FlatBuffer& buffer, AdamWOptions const& options, Communicator shared_over = {});
  // own_gradients: GradientReducer's; with an average they are overwritten. learning_rate, found_inf: fp32 scalars on
  // the buffer's device. No host synchronisation; starts the all-gathers. Collective over the group. idle_sections: bit
  // s leaves section s as it is, weight decay included: what no loss reached in this update (the count of updates and
  // the average, which are of all, go on). gradient_factor: an fp32 scalar on the device that the gradients are to be
  // multiplied by (GradientNorm::Measured), undefined for 1.
  void step(at::Tensor const& own_gradients, at::Tensor const& learning_rate, at::Tensor const& found_inf,
            std::uint32_t idle_sections = 0, at::Tensor const& gradient_factor = {});
  // The buffer's parameters and rounded() may be read behind this (a stream wait on CUDA). Called before each use of them.
  void wait_for_parameters();
  void abandon();  // instead of it: what step() started is not waited for
  // The parameters as they are now, in bf16, laid out as the flat buffer; undefined without `rounds`.
  at::Tensor rounded() const { return rounded_; }
  void parameters_replaced() { rounded_stands_ = false; }  // by others than step()

  at::Tensor exp_avg() const { return exp_avg_; }  // of what is owned
  at::Tensor exp_avg_sq() const { return exp_avg_sq_; }
  at::Tensor average() const { return average_; }            // undefined without a decay
  at::Tensor update_count() const { return update_count_; }  // fp32 scalar: updates not skipped
  // The average becomes the parameters as they are now: at construction, and where a checkpoint has none.
  void start_average();

  // For checkpoints: owned values (a moment, the average) laid out as the flat buffer, from `begin` on copied into `pieces`,
  // one after another, on whatever device. Collective: every rank calls, each with the pieces that it wants, none too.
  void gather(at::Tensor const& own, std::int64_t begin, std::vector<at::Tensor> const& pieces) const;
  // The way back: `values` lie at `begin` of the flat buffer; what of them is owned goes into `own`. Not collective.
  void restore(at::Tensor const& own, std::int64_t begin, at::Tensor const& values) const;
  Communicator const& shared_over() const { return group_; }

 private:
  void start_gather(BucketRange const& bucket);

  void update(OwnedRange const& range, at::Tensor const& own_gradients, at::Tensor const& learning_rate,
              at::Tensor const& found_inf);
  void weigh_average(at::Tensor const& found_inf);
  at::Tensor rate_of(int group, at::Tensor const& learning_rate);
  void follow(OwnedRange const& range, at::Tensor const& own_gradients);
  void update_by_kernel(OwnedRange const& range, at::Tensor const& own_gradients, at::Tensor const& learning_rate,
                        at::Tensor const& found_inf, at::Tensor const& gradient_factor, bool idle);

  FlatBuffer& buffer_;
  AdamWOptions options_;
  Communicator group_;
  std::vector<OwnedRange> owned_;
  std::vector<Pending> gathers_;
  at::Tensor exp_avg_, exp_avg_sq_, update_count_;
  at::Tensor rounded_;
  bool rounded_stands_ = false;              // else wait_for_parameters() rounds
  at::Tensor average_, average_weight_;      // w, of this update
  std::vector<at::Tensor> factors_, rates_;  // by group; no rate where the factor is 1: it is the one given
};

}  // namespace duoflow::dist
