#include "model/render_pass.h"

#include <algorithm>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/metrics.h"

namespace duoflow::model {
namespace {

void add(at::Tensor& sum, at::Tensor const& mean, double share) {
  if (mean.defined()) sum = sum + share * mean;
}

// A chunk with this share of the views.
void measure(RenderedViews& views, RenderLoss::Result const& result, at::Tensor const& image, at::Tensor const& target,
             double share) {
  add(views.loss, result.loss.detach(), share);
  add(views.lpips, result.term("lpips"), share);
  add(views.perceptual, result.term("perceptual"), share);
  at::Tensor const mse_of_each = (image - target).square_().flatten(2).mean(2);
  add(views.mse, mse_of_each.mean(1), share);
  add(views.psnr, psnr_of_mse(mse_of_each).mean(1), share);
}

}  // namespace

RenderedViews render_and_walk_back(SceneModel const& model, RenderLoss const& loss, at::Tensor const& latents,
                                   at::Tensor const& rays, at::Tensor const& target, RenderSamples const& samples,
                                   LossFactor const& factor, std::function<void(RenderedViews const&)> const& measured) {
  std::int64_t const views = rays.size(1), chunk = loss.view_chunk() > 0 ? std::min(loss.view_chunk(), views) : views;
  at::Tensor const leaf = latents.detach().requires_grad_(latents.requires_grad());
  at::Tensor const zero = at::zeros({latents.size(0)}, latents.options().dtype(at::kFloat));
  RenderedViews result{zero, zero, zero, zero, zero, {}, {}};
  std::vector<at::Tensor> images;
  for (std::int64_t first = 0; first < views; first += chunk) {
    auto const count = std::min(chunk, views - first);
    double const share = static_cast<double>(count) / static_cast<double>(views);
    auto const part = [&](at::Tensor const& x) { return x.narrow(1, first, count); };
    at::Tensor const image = [&] {
      RECORD_USER_SCOPE("renderer forward");
      return model.render(leaf, part(rays));
    }();
    auto const of_chunk = [&] {
      RECORD_USER_SCOPE("losses");
      auto terms = loss(image, part(target), {samples.t, samples.positions, samples.first_view + first});
      images.push_back(image.detach());
      measure(result, terms, images.back(), part(target), share);
      return terms;
    }();
    if (first + count == views) measured(result);
    RECORD_USER_SCOPE("renderer backward");  // through the losses too
    at::Tensor const root = at::full_like(of_chunk.loss, factor.host * share);
    torch::autograd::backward({of_chunk.loss}, {factor.device.defined() ? root.mul_(factor.device) : root});
  }
  result.image = images.size() == 1 ? images.front() : at::cat(images, 1);
  result.gradient = leaf.grad();
  return result;
}

}  // namespace duoflow::model
