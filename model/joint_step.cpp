#include "model/joint_step.h"

#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/flow/path.h"
#include "model/loss/cut.h"
#include "model/loss/velocity.h"

namespace duoflow::model {

namespace {

JointLossOptions const& checked(JointLossOptions const& options) {
  double const lambda_v = options.lambda_v, lambda_r = options.lambda_r;
  if (!std::isfinite(lambda_v) || !std::isfinite(lambda_r) || lambda_v < 0 || lambda_r < 0 ||
      lambda_v + lambda_r == 0) {
    throw std::invalid_argument(fmt::format(
        "the weights of the velocity and the render loss are {} and {}, use numbers >= 0 that are not both 0", lambda_v,
        lambda_r));
  }
  return options;
}

// [B] each, detached.
struct SampleLosses {
  at::Tensor velocity, latent_std;  // the latter of x0, over tokens and width
  RenderedViews rendered;
};

SampleLosses zero_losses(std::int64_t samples, at::TensorOptions const& options) {
  at::Tensor const zero = at::zeros({samples}, options.dtype(at::kFloat));
  return {zero, zero, {zero, zero, zero, zero, zero, {}, {}}};
}

// Statistics vector of one micro-step, put together on the device.
at::Tensor pack(SampleLosses const& losses) {
  at::Tensor const finite = at::isfinite(losses.velocity).logical_and(at::isfinite(losses.rendered.loss));
  at::Tensor sums = at::zeros({kStatisticCount}, losses.velocity.options().dtype(at::kDouble));
  auto const put = [&sums](StatisticSlot slot, at::Tensor const& per_sample) {
    sums.select(0, slot).copy_(per_sample.sum(at::kDouble));
  };
  put(kVelocityLoss, losses.velocity);
  put(kRenderLoss, losses.rendered.loss);
  put(kMse, losses.rendered.mse);
  put(kPsnr, losses.rendered.psnr);
  put(kLpips, losses.rendered.lpips);
  put(kPerceptual, losses.rendered.perceptual);
  put(kNonFinite, finite.logical_not());
  put(kLatentStd, losses.latent_std);
  sums.select(0, kSamples).fill_(losses.velocity.size(0));
  return sums;
}

}  // namespace

JointStep::JointStep(SceneModel& model, JointLossOptions const& options, Weighting& weighting)
    : model_(model), options_(checked(options)), weighting_(weighting), render_loss_(options.render) {
  if (weighting.needs_both_losses() && (options.lambda_v == 0 || options.lambda_r == 0 || render_loss_.empty())) {
    throw std::invalid_argument(fmt::format(
        "the weighting is one of the velocity and the render loss together but one of them is off (weights {} and "
        "{}{}), use weighting 'fixed' or give both a weight",
        options.lambda_v, options.lambda_r, render_loss_.empty() ? ", no image term" : ""));
  }
}

bool JointStep::velocity_counts(std::int64_t step) const {
  if (options_.lambda_v == 0) return false;
  return weighting_.needs_statistics() || weighting_.weights_at(step).first != 0;
}

bool JointStep::render_counts(std::int64_t step) const {
  if (options_.lambda_r == 0 || render_loss_.empty()) return false;
  return weighting_.known_render_weight(step).value_or(1) != 0;
}

// Everything up to v_pred.
struct JointStep::BeforeCut {
  at::Tensor x0;
  PathPoint point;
  at::Tensor v_pred;
};

JointStep::BeforeCut JointStep::before_cut(JointBatch const& batch, at::Tensor const& x1, bool with_graph, char const* stage) const {
  RECORD_USER_SCOPE(stage);
  at::Tensor const x0 = encode_source(batch, with_graph);
  at::AutoGradMode const grad(with_graph);
  at::Tensor const source = model_.to_flow_space(x0);
  bool const from_noise = model_.options().editor == EditorKind::noise_to_relit;
  PathPoint const point = path_point(options_.path, options_.path_sigma, from_noise ? batch.noise : source,
                                     model_.to_flow_space(x1), batch.t, batch.noise);
  return {x0, point, model_.velocity(point.x_t, batch.t, model_.light_tokens(batch.env, batch.light_kept), source)};
}

at::Tensor JointStep::encode_source(JointBatch const& batch, bool with_graph) const {
  if (batch.x0.defined()) return batch.x0;
  RECORD_USER_SCOPE("reconstructor forward");
  at::AutoGradMode const grad(with_graph && weighting_.cut_rule() != CutRule::velocity_alone);
  return model_.reconstruct(batch.input_image, batch.input_rays);
}

at::Tensor JointStep::encode_target(JointBatch const& batch) const {
  if (batch.x1.defined()) return batch.x1;
  RECORD_USER_SCOPE("reconstructor forward");
  at::NoGradGuard const no_graph;
  return model_.reconstruct(batch.relit_image, batch.input_rays);
}

// Whether x_t and the target lead to the reconstructor too. Where the losses do not meet neither reaches it.
bool JointStep::path_trains_reconstructor(JointBatch const& batch) const {
  return !batch.x0.defined() && model_.trainable(Part::reconstructor) &&
         model_.options().editor != EditorKind::noise_to_relit && weighting_.cut_rule() != CutRule::velocity_alone;
}

// What the render loss's sum over the samples is multiplied by on its way down to the leaves at the cut and into a
// trainable renderer.
LossFactor JointStep::render_factor(std::int64_t step, std::int64_t global_batch, AtCut& at_cut) const {
  auto const known = weighting_.known_render_weight(step);
  auto const standing = known ? std::nullopt : weighting_.standing_weights();
  at_cut.render_weight_is_late = !known && !standing;
  return {options_.lambda_r * known.value_or(1) / static_cast<double>(global_batch),
          standing ? standing->render : at::Tensor()};
}

AtCut JointStep::run_to_cut(JointBatch const& batch, std::int64_t step, std::int64_t global_batch, bool keep_graph,
                            std::function<void(at::Tensor const& sums)> const& contribute) {
  AtCut at_cut;
  at_cut.x1 = encode_target(batch);
  BeforeCut const before = before_cut(batch, at_cut.x1, keep_graph, "editor forward");
  at_cut.x0 = before.x0.detach();
  at_cut.x_t = before.point.x_t.detach();
  at_cut.v_pred = before.v_pred.detach();
  if (keep_graph) at_cut.v_pred_graph = before.v_pred;
  bool const attached = path_trains_reconstructor(batch);
  at::Tensor const v_cut = before.v_pred.detach().requires_grad_(true);
  at::Tensor const x_t_cut = attached ? before.point.x_t.detach().requires_grad_(true) : at_cut.x_t;

  at::Tensor const x_hat = model_.from_flow_space(x_t_cut + (1 - batch.t).view({-1, 1, 1}) * v_cut);
  at_cut.x_hat = x_hat.detach();
  bool const with_velocity = velocity_counts(step);
  bool const with_render = render_counts(step);
  at::Tensor const target = before.point.target.detach();
  SampleLosses losses = zero_losses(batch.t.size(0), v_cut.options());
  if (!batch.x0.defined()) losses.latent_std = at_cut.x0.flatten(1).std(1);
  if (with_velocity) {
    RECORD_USER_SCOPE("losses");
    losses.velocity = velocity_loss(at_cut.v_pred, target);
  }
  if (with_render) {
    auto const rendered = render_and_walk_back(model_, render_loss_, x_hat, batch.target_rays, batch.target_image,
                                               {batch.t, batch.positions}, render_factor(step, global_batch, at_cut),
                                               [&](auto const& measured) {
                                                 losses.rendered = measured;
                                                 contribute(pack(losses));
                                               });
    at_cut.image = rendered.image;
    RECORD_USER_SCOPE("renderer backward");
    torch::autograd::backward({x_hat}, {rendered.gradient});
    at_cut.g_render = v_cut.grad();
  } else {
    contribute(pack(losses));
  }
  if (with_velocity) at_cut.g_velocity = velocity_loss_gradient(at_cut.v_pred, target, global_batch);
  at_cut.velocity_loss = losses.velocity;
  at_cut.render_loss = losses.rendered.loss;
  if (!attached) return at_cut;
  at_cut.g_x_t = with_render ? x_t_cut.grad() : at::zeros_like(at_cut.x_t);
  if (keep_graph) {
    at_cut.x_t_graph = before.point.x_t;
    at_cut.target_graph = before.point.target;
  }
  return at_cut;
}

LossWeights JointStep::weights_at(std::int64_t step) const {
  auto const [w_v, w_r] = weighting_.weights_at(step);
  auto const device = model_.parameters().front().tensor.device();
  at::TensorOptions const scalar = at::TensorOptions(at::kFloat).device(device);
  return {at::full({}, w_v, scalar), at::full({}, w_r, scalar)};
}

std::optional<LossWeights> JointStep::known_weights(std::int64_t step) const {
  return weighting_.needs_statistics() ? weighting_.standing_weights() : weights_at(step);
}

LossWeights JointStep::combine(at::Tensor const& global_sums, std::int64_t step) {
  if (!weighting_.needs_statistics()) return weights_at(step);
  at::Tensor const samples = global_sums.select(0, kSamples);
  at::Tensor const velocity_loss = global_sums.select(0, kVelocityLoss) / samples;
  at::Tensor const render_loss = global_sums.select(0, kRenderLoss) / samples;
  at::Tensor const finite = (global_sums.select(0, kNonFinite) == 0)
                                .logical_and(at::isfinite(velocity_loss))
                                .logical_and(at::isfinite(render_loss));
  return weighting_.weights(velocity_loss, render_loss, finite.to(at::kDouble));
}

void JointStep::observe(GradientSquares const& weighted, LossWeights const& used, at::Tensor const& valid) {
  at::NoGradGuard const detached;
  auto const bare = [](at::Tensor const& square, double lambda, at::Tensor const& weight) {
    return square / (lambda * weight.to(at::kDouble)).square();
  };
  weighting_.observe({bare(weighted.velocity, options_.lambda_v, used.velocity),
                      bare(weighted.render, options_.lambda_r, used.render)},
                     valid.to(at::kDouble));
}

GradientSquares JointStep::bare_squares(AtCut const& at_cut) const {
  at::NoGradGuard const detached;
  auto const square = [](at::Tensor const& g) { return g.square().sum(at::kDouble); };
  return {square(at_cut.g_velocity), square(at_cut.g_render) / (options_.lambda_r * options_.lambda_r)};
}

void JointStep::run_velocity_alone(JointBatch const& batch, std::int64_t global_batch) {
  BeforeCut const before = before_cut(batch, encode_target(batch), true, "editor forward");
  RECORD_USER_SCOPE("editor backward");
  at::Tensor const target = before.point.target;
  at::Tensor const g =
      options_.lambda_v * velocity_loss_gradient(before.v_pred.detach(), target.detach(), global_batch);
  if (!path_trains_reconstructor(batch)) {
    torch::autograd::backward({before.v_pred}, {g});
    return;
  }
  torch::autograd::backward({before.v_pred, target}, {g, -g});
}

void JointStep::run_from_cut(JointBatch const& batch, AtCut const& at_cut, LossWeights const& weights,
                             at::Tensor const& cut_sums) {
  RECORD_USER_SCOPE("editor backward");
  bool const late = at_cut.render_weight_is_late;
  at::Tensor g =
      combine_at_cut(at_cut.g_velocity, options_.lambda_v * weights.velocity,
                     late ? at_cut.g_render * weights.render : at_cut.g_render, cut_sums, weighting_.cut_rule());
  // Both losses off at this step of a schedule: the editor's parameters still get their (zero) gradient, as the reducer
  // expects.
  if (!g.defined()) g = at::zeros_like(at_cut.v_pred);
  at::Tensor v_pred = at_cut.v_pred_graph;
  PathPoint point{at_cut.x_t_graph, at_cut.target_graph};
  if (!v_pred.defined()) {
    BeforeCut const again = before_cut(batch, at_cut.x1, true, "editor forward again");
    v_pred = again.v_pred;
    point = again.point;
  }
  if (!path_trains_reconstructor(batch)) {
    torch::autograd::backward({v_pred}, {g});
    return;
  }
  // L_v depends on the target as it does on v_pred, with the other sign.
  at::Tensor const g_target =
      at_cut.g_velocity.defined() ? -options_.lambda_v * weights.velocity * at_cut.g_velocity : at::zeros_like(g);
  at::Tensor const g_x_t = late ? at_cut.g_x_t * weights.render : at_cut.g_x_t;
  torch::autograd::backward({v_pred, point.x_t, point.target}, {g, g_x_t, g_target});
}

at::Tensor reconstruction_step(SceneModel& model, RenderLoss const& loss, ReconstructionBatch const& batch,
                               std::int64_t global_batch,
                               std::function<void(at::Tensor const& sums)> const& contribute) {
  if (loss.empty()) {
    throw std::invalid_argument(
        "reconstruction with no render loss (every image term has weight 0), give one of them a weight");
  }
  at::Tensor const latents = [&] {
    RECORD_USER_SCOPE("reconstructor forward");
    return model.reconstruct(batch.input_image, batch.input_rays);
  }();
  SampleLosses losses = zero_losses(latents.size(0), latents.options());
  losses.latent_std = latents.detach().flatten(1).std(1);
  auto const rendered =
      render_and_walk_back(model, loss, latents, batch.target_rays, batch.target_image, {{}, batch.positions},
                           {1.0 / static_cast<double>(global_batch)}, [&](auto const& measured) {
                             losses.rendered = measured;
                             contribute(pack(losses));
                           });
  RECORD_USER_SCOPE("reconstructor backward");
  if (rendered.gradient.defined()) torch::autograd::backward({latents}, {rendered.gradient});
  return rendered.image;
}

}  // namespace duoflow::model
