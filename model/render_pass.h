#pragma once
// The render loss forward and back: target views are rendered, measured and walked back to the latents a chunk at a
// time (RenderLossOptions::view_chunk), so that memory is that of one chunk whatever the number of views. L_r is a mean
// over a sample's views, so the chunks' gradients, each with its share of the views, add up to the whole's.

#include <cstdint>
#include <functional>

#include <ATen/core/Tensor.h>

#include "model/loss/render.h"
#include "model/scene_model.h"

namespace duoflow::model {

struct RenderedViews {
  // [B] per sample, detached: L_r; of its terms as they enter it, zero where they have no weight; means over the views.
  at::Tensor loss, lpips, perceptual, mse, psnr;
  at::Tensor image;     // [B,T,3,H,W] detached
  at::Tensor gradient;  // at the latents, of factor * sum over the samples of L_r; undefined for constant latents
};

struct LossFactor {
  double host = 1;
  at::Tensor device{};  // fp32 scalar, times the other; undefined: 1
};

// latents [B,n,d] in renderer space, whose graph is not walked; rays [B,T,6,H,W], target [B,T,3,H,W]. The renderer's
// gradients are added to its parameters in place. `measured` is called once, with all but image and gradient, before
// the last chunk's backward: what a launcher sends then travels beside that backward.
RenderedViews render_and_walk_back(SceneModel const& model, RenderLoss const& loss, at::Tensor const& latents,
                                   at::Tensor const& rays, at::Tensor const& target, RenderSamples const& samples,
                                   LossFactor const& factor, std::function<void(RenderedViews const&)> const& measured);

}  // namespace duoflow::model
