#pragma once
// The joint step (DESIGN section 2): one shared graph, walked once, cut at v_pred.
//
//   run_to_cut:  x_t, target = path(x0, x1, t); v_pred = editor(x_t, t, light); v_cut = v_pred detached, a leaf;
//                x_hat = x_t + (1-t) v_cut -> renderer -> L_r; L_v from v_cut; statistics handed to the exchange;
//                backward of L_r down to v_cut (renderer's gradients accumulate into its parameters).
//   run_from_cut: g = lambda_r w_r g_ren + lambda_v w_v g_vel; backward of v_pred with g (editor's gradients).
// Gradients are those of sum over the samples / G, to be SUM-reduced over micro-steps and ranks.
// No host synchronisation anywhere.

#include <functional>
#include <optional>

#include <ATen/core/Tensor.h>

#include "model/loss/render.h"
#include "model/loss/weighting.h"
#include "model/scene_model.h"

namespace duoflow::model {

// Slots of the statistics vector (fp64), sums over samples unless said otherwise. The launcher appends its own after kCount.
enum StatisticSlot : int {
  kVelocityLoss, kRenderLoss, kMse, kPsnr,   // sums over samples (kPsnr: of the mean per-image PSNR of each sample)
  kSamples,
  kNonFinite,                                // number of samples whose L_v or L_r is not finite
  kGradVelocitySq, kGradRenderSq, kGradDot,  // at v_pred of the *previous* step (known only after the renderer's backward)
  kStatisticCount
};

struct JointBatch {
  at::Tensor x0, x1;           // [B,n,d] fp32, renderer space (un-normalised)
  at::Tensor t;                // [B] fp32
  at::Tensor env;              // [B,E,9,h,w]
  at::Tensor target_rays;      // [B,T,6,H,W]
  at::Tensor target_image;     // [B,T,3,H,W] in [0,1]
};

struct JointLossOptions {
  double lambda_v = 1, lambda_r = 1;
  RenderLossOptions render;
};

// What one micro-step leaves behind at the cut.
struct AtCut {
  at::Tensor v_pred;                 // with its graph, or undefined when the editor is to be run again
  at::Tensor x_t, x_hat, image;      // detached
  at::Tensor g_velocity, g_render;   // d(L_v)/dv_cut and lambda_r * w_r(if known before) * d(L_r)/dv_cut, [B,n,d]; see .cpp
  at::Tensor velocity_loss, render_loss;  // [B] per sample, detached
};

class JointStep {
 public:
  JointStep(SceneModel& model, JointLossOptions const& options, Weighting& weighting);

  // `contribute` gets this micro-step's fp64 [kStatisticCount] sums between the forward and the renderer's backward:
  // the launcher starts its all-reduce there. `global_batch` = G. keep_graph: false re-runs the editor in run_from_cut.
  AtCut run_to_cut(JointBatch const& batch, std::int64_t step, std::int64_t global_batch, bool keep_graph,
                   std::function<void(at::Tensor const& sums)> const& contribute);

  // Global sums [>= kStatisticCount] -> weights for this step; call once per step, after awaiting.
  LossWeights combine(at::Tensor const& global_sums, std::int64_t step);

  // Back-propagates one micro-step's combined gradient. Adds this micro-step's |g_v|^2, |g_r|^2, g_v.g_r (weighted
  // gradients, fp64 [3]) to `cut_sums`.
  void run_from_cut(JointBatch const& batch, AtCut const& at_cut, LossWeights const& weights, at::Tensor& cut_sums);

 private:
  SceneModel& model_;
  JointLossOptions options_;
  Weighting& weighting_;
  RenderLoss render_loss_;
};

// Stage 1: reconstructor + renderer with the render loss alone. Returns the fp64 [kStatisticCount] sums through `contribute`
// before the backward.
struct ReconstructionBatch {
  at::Tensor input_image, input_rays;    // [B,V,3,H,W], [B,V,6,H,W]
  at::Tensor target_rays, target_image;  // [B,T,6,H,W], [B,T,3,H,W]
};
at::Tensor reconstruction_step(SceneModel& model, RenderLoss const& loss, ReconstructionBatch const& batch, std::int64_t global_batch,
                               std::function<void(at::Tensor const& sums)> const& contribute);  // rendered images, detached

}  // namespace duoflow::model
