#pragma once
// The joint step (DESIGN section 2): one shared graph, walked once, cut at v_pred.
//
//   run_to_cut:  x_t, target = path(x0, x1, t); v_pred = editor(x_t, t, light); v_cut = v_pred detached, a leaf;
//                x_hat = x_t + (1-t) v_cut -> renderer -> L_r; L_v from v_cut; statistics handed to the exchange;
//                backward of L_r down to v_cut (renderer's gradients accumulate into its parameters). With view chunks
//                (model/render_pass.h) the exchange begins before the last chunk's backward.
//   combine:     the step's global statistics -> w_v, w_r.
//   run_from_cut: g = lambda_v w_v g_vel + lambda_r w_r g_ren; backward of v_pred with g (editor's gradients).
// Gradients are those of sum over the samples / G, to be SUM-reduced over micro-steps and ranks; they are added to the
// parameters' .grad in place. A loss whose weight lambda*w is zero is not computed: it is reported as zero and has no
// gradient. No host synchronisation anywhere.

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/flow/path.h"
#include "model/loss/render.h"
#include "model/loss/weighting.h"
#include "model/render_pass.h"
#include "model/scene_model.h"

namespace duoflow::model {

// Slots of the statistics vector (fp64), sums over samples unless said otherwise. The launcher appends its own after
// kStatisticCount.
enum StatisticSlot : int {
  kVelocityLoss,
  kRenderLoss,
  // Of the mean over the sample's target images.
  kMse,
  kPsnr,
  // Of the terms as they enter L_r, unweighted; 0 where they have no weight.
  kLpips,
  kPerceptual,
  kSamples,
  // Number of samples whose L_v or L_r is not finite.
  kNonFinite,
  // Of x0's standard deviation over tokens and width, which a collapsing reconstructor lets fall; 0 for constant x0.
  kLatentStd,
  // At v_pred of the *previous* step (known only after the renderer's backward): handed out as zeros, the launcher adds
  // its run_from_cut sums.
  kGradVelocitySq,
  kGradRenderSq,
  kGradDot,
  kStatisticCount
};

struct JointBatch {
  // [B,n,d] fp32, renderer space (un-normalised), constants. Undefined: both ends are encoded from the pictures below.
  at::Tensor x0, x1;
  at::Tensor t;             // [B] fp32
  at::Tensor env;           // [B,E,9,h,w]
  at::Tensor target_rays;   // [B,T,6,H,W]
  at::Tensor target_image;  // [B,T,3,H,W] in [0,1]
  // Online latents: the input views under the first light and under the second, [B,V,3,H,W], and their rays
  // [B,V,6,H,W].
  at::Tensor input_image{}, relit_image{}, input_rays{};
  at::Tensor noise{};  // [B,n,d] standard normal: where the path of EditorKind::noise_to_relit begins; eps of a bridge
  at::Tensor light_kept{};  // [B] 1 or 0: samples that are shown no light have 0; undefined: all see theirs
  std::vector<std::uint64_t> positions{};  // [B] in the run's order; empty: 0, 1, ..
};

struct JointLossOptions {
  double lambda_v = 1, lambda_r = 1;
  RenderLossOptions render;
  Path path = Path::linear;
  double path_sigma = 0;
};

// What one micro-step leaves behind at the cut.
//
// Of online latents x0 carries the reconstructor's graph when that part is trainable (x1 never does: both ends moving
// towards each other would be a way to a small L_v; reference/method.md 1.5 #3). The cut is then at v_pred, x_t and the
// target together, the three ways to the reconstructor, and run_from_cut goes on into it. With noise_to_relit the path
// does not know x0 and v_pred is the only way.
struct AtCut {
  at::Tensor x0, x1;  // [B,n,d] renderer space, detached
  at::Tensor x_t;     // [B,n,d] flow space, detached
  at::Tensor v_pred;  // [B,n,d], detached
  at::Tensor x_hat;   // [B,n,d] renderer space, detached
  at::Tensor image;   // [B,T,3,H,W], detached; undefined when L_r is not computed
  // Both are [B,n,d], with 1/G inside. g_velocity is that of the bare L_v; run_from_cut applies lambda_v w_v, which may
  // be known late. g_render has lambda_r w_r inside already, so that the renderer's own gradients are final; of a w_r
  // that comes late only lambda_r: run_from_cut multiplies by w_r, and the caller the renderer's gradients, once. Both
  // undefined when the loss is not computed.
  at::Tensor g_velocity, g_render;
  bool render_weight_is_late = false;
  at::Tensor velocity_loss, render_loss;  // [B] per sample, detached, unweighted
  // [B,n,d] gradient of L_r, weighted as g_render, at x_t beside the way through v_pred; undefined: x0 constant.
  at::Tensor g_x_t;
  // With their graphs; undefined when they are to be run again.
  at::Tensor v_pred_graph, x_t_graph, target_graph;
};

class JointStep {
 public:
  // `model` and `weighting` must outlive this. std::invalid_argument for negative, non-finite or all-zero lambdas, and
  // for a weighting that compares the two losses while one of them is switched off.
  JointStep(SceneModel& model, JointLossOptions const& options, Weighting& weighting);

  // `contribute` gets this micro-step's fp64 [kStatisticCount] sums between the forward and the renderer's backward:
  // the launcher starts its all-reduce there (in view chunks: before the last one's backward). `global_batch` = G.
  // keep_graph: false runs the editor (and a trainable reconstructor) again in run_from_cut.
  AtCut run_to_cut(JointBatch const& batch, std::int64_t step, std::int64_t global_batch, bool keep_graph,
                   std::function<void(at::Tensor const& sums)> const& contribute);

  // The weights of this step where they do not depend on its statistics (loss/weighting.h), else nothing. With
  // them a micro-step can run from end to end at once. combine() of the step gives the same.
  std::optional<LossWeights> known_weights(std::int64_t step) const;

  // Global sums [>= kStatisticCount] -> weights for this step; call once per step, after awaiting. weights.render is
  // the one that run_to_cut has used already, unless it is late.
  LossWeights combine(at::Tensor const& global_sums, std::int64_t step);

  // Hands squares of weighted gradients to a weighting that balances them, as those of the bare losses. `used`: the
  // weights they have inside; `valid` (bool scalar): false when their step was skipped.
  void observe(GradientSquares const& weighted, LossWeights const& used, at::Tensor const& valid);

  // Of one micro-step, for such a weighting in its exposed form: its own samples' squares of the bare losses' gradients
  // at v_pred (1/G inside), to be summed over micro-steps and ranks. w_r is 1 in it.
  GradientSquares bare_squares(AtCut const& at_cut) const;

  // A backward of lambda_v L_v alone, into the editor (and a trainable reconstructor): what a weighting that balances
  // over parameters measures, reduced by itself.
  void run_velocity_alone(JointBatch const& batch, std::int64_t global_batch);

  // Back-propagates one micro-step's combined gradient; frees a kept graph. Adds this micro-step's |g_v|^2, |g_r|^2,
  // g_v.g_r (weighted gradients, fp64 [3]) to `cut_sums`.
  void run_from_cut(JointBatch const& batch, AtCut const& at_cut, LossWeights const& weights,
                    at::Tensor const& cut_sums);

 private:
  struct BeforeCut;
  BeforeCut before_cut(JointBatch const& batch, at::Tensor const& x1, bool with_graph, char const* stage) const;
  at::Tensor encode_source(JointBatch const& batch, bool with_graph) const;
  at::Tensor encode_target(JointBatch const& batch) const;
  bool path_trains_reconstructor(JointBatch const& batch) const;
  bool velocity_counts(std::int64_t step) const;
  bool render_counts(std::int64_t step) const;
  LossFactor render_factor(std::int64_t step, std::int64_t global_batch, AtCut& at_cut) const;

  LossWeights weights_at(std::int64_t step) const;

  SceneModel& model_;
  JointLossOptions options_;
  Weighting& weighting_;
  RenderLoss render_loss_;
};

// Stage 1: reconstructor + renderer with the render loss alone (gradients of its sum over the samples / G). Returns the
// fp64 [kStatisticCount] sums through `contribute` before the backward.
struct ReconstructionBatch {
  at::Tensor input_image, input_rays;      // [B,V,3,H,W], [B,V,6,H,W]
  at::Tensor target_rays, target_image;    // [B,T,6,H,W], [B,T,3,H,W]
  std::vector<std::uint64_t> positions{};  // [B] in the run's order; empty: 0, 1, ..
};
at::Tensor reconstruction_step(
    SceneModel& model, RenderLoss const& loss, ReconstructionBatch const& batch, std::int64_t global_batch,
    std::function<void(at::Tensor const& sums)> const& contribute);  // rendered images, detached

}  // namespace duoflow::model
