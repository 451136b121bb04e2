// What the weightings make of the two gradients at the cut: late and standing render weights, gradient surgery,
// separate graphs. Against plain backwards of the same objective.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/loss/cut.h"
#include "tests/model/flow_loss/small_joint.h"

namespace duoflow::model {
namespace {

constexpr double kLambdaV = 0.7, kLambdaR = 1.3;

// Of the objective with these lambdas.
test::Tensors plain_gradients_of(SmallJoint& small, double w_v, double w_r, bool render_sees_v = true) {
  return plain_gradients(small, kLambdaV * w_v, kLambdaR * w_r, render_sees_v);
}

JointLossOptions lambdas() { return test::lambdas(kLambdaV, kLambdaR); }

// As the caller of run_from_cut has to.
void scale_renderer(SmallJoint& small, at::Tensor const& weight) {
  at::NoGradGuard const no_grad;
  for (auto const& parameter : small.model.parameters())
    if (parameter.part == Part::renderer) parameter.tensor.grad().mul_(weight);
}

TEST(CutRuleTest, ALateRenderWeightIsThatOfAPlainBackwardOnceTheRenderersGradientsAreScaled) {
  for (bool const keep_graph : {true, false}) {
    SmallJoint small;
    auto const result = run_whole_step(small, lambdas(), test::named("normalized_each"), keep_graph);
    EXPECT_TRUE(result.at_cut.render_weight_is_late);
    double const w_v = result.weights.velocity.item<double>(), w_r = result.weights.render.item<double>();
    EXPECT_NEAR(w_v * result.sums[kVelocityLoss].item<double>() / 2, 1, 1e-5);
    EXPECT_NEAR(w_r * result.sums[kRenderLoss].item<double>() / 2, 1, 1e-5);
    EXPECT_GT(std::abs(w_r - 1), 0.1);
    scale_renderer(small, result.weights.render);
    auto const found = small.gradients();
    EXPECT_LT(largest_distance(found, plain_gradients_of(small, w_v, w_r)), kRounding);
    // What is measured is weighted.
    at::Tensor const r = (w_r * result.at_cut.g_render.to(at::kDouble)).square().sum();
    EXPECT_LT(test::relative_error(result.cut_sums[1], r), 1e-6);
  }
}

// Standing weights multiply the root of the renderer's backward: nothing is left to scale.
TEST(CutRuleTest, AStandingRenderWeightIsInsideTheRenderersGradients) {
  SmallJoint small;
  auto options = test::named("uncertainty");
  auto const weighting = make_weighting(options, at::kCPU);
  weighting->state()[0].second.copy_(at::tensor({-1.25, 0.75}, at::kDouble));
  JointStep joint(small.model, lambdas(), *weighting);
  at::Tensor sums, cut_sums = at::zeros({3}, at::kDouble);
  auto const cut = joint.run_to_cut(small.batch, 0, 2, true, [&](at::Tensor const& local) { sums = local; });
  EXPECT_FALSE(cut.render_weight_is_late);
  auto const known = joint.known_weights(0);
  ASSERT_TRUE(known);
  joint.run_from_cut(small.batch, cut, *known, cut_sums);
  auto const found = small.gradients();
  EXPECT_LT(largest_distance(found, plain_gradients_of(small, std::exp(1.25), std::exp(-0.75))), kRounding);
  auto const combined = joint.combine(sums, 0);  // of the step that they were known before, and then it learns
  EXPECT_TRUE(at::equal(combined.velocity, known->velocity));
  EXPECT_TRUE(at::equal(combined.render, known->render));
  EXPECT_FALSE(at::equal(joint.known_weights(1)->velocity, known->velocity));
}

TEST(CutRuleTest, WithSeparateGraphsTheRenderLossTrainsTheRendererAlone) {
  SmallJoint small;
  auto const result = run_whole_step(small, lambdas(), test::named("separate_graphs"), true);
  auto const found = small.gradients();
  EXPECT_LT(largest_distance(found, plain_gradients_of(small, 1, 1, /*render_sees_v=*/false)), kRounding);
  EXPECT_GT(result.cut_sums[1].item<double>(), 0);  // measured all the same
}

TEST(CutRuleTest, WithSeparateGraphsNoLossReachesAReconstructor) {
  for (bool const keep_graph : {true, false}) {
    SmallJoint small;
    auto const& pictures = small.reconstruction;
    small.batch.x0 = small.model.reconstruct(pictures.input_image, pictures.input_rays);
    small.batch.x1 = small.model.reconstruct(1 - pictures.input_image, pictures.input_rays);
    auto expected = plain_gradients_of(small, 1, 1, /*render_sees_v=*/false);
    small.model.set_trainable(Part::reconstructor, true);
    small.clear_gradients();
    small.batch.x0 = small.batch.x1 = at::Tensor();
    small.batch.input_image = pictures.input_image, small.batch.input_rays = pictures.input_rays;
    small.batch.relit_image = 1 - pictures.input_image;
    run_whole_step(small, lambdas(), test::named("separate_graphs"), keep_graph);
    for (auto const& [name, gradient] : small.gradients(Part::reconstructor)) {
      EXPECT_EQ(gradient.abs().max().item<double>(), 0) << name;
      expected.emplace(name, gradient);
    }
    EXPECT_LT(largest_distance(small.gradients(), expected), kRounding);
  }
}

// The three ways behind the cut take the late weight too.
TEST(CutRuleTest, ALateRenderWeightReachesAReconstructorThatTrains) {
  for (bool const keep_graph : {true, false}) {
    SmallJoint small;
    small.model.set_trainable(Part::reconstructor, true);
    auto const& pictures = small.reconstruction;
    at::Tensor const relit = 1 - pictures.input_image;
    small.clear_gradients();
    small.batch.x0 = small.batch.x1 = at::Tensor();
    small.batch.input_image = pictures.input_image, small.batch.input_rays = pictures.input_rays;
    small.batch.relit_image = relit;
    auto const result = run_whole_step(small, lambdas(), test::named("normalized_each"), keep_graph);
    scale_renderer(small, result.weights.render);
    auto const found = small.gradients();
    small.batch.x0 = small.model.reconstruct(pictures.input_image, pictures.input_rays);
    small.batch.x1 = small.model.reconstruct(relit, pictures.input_rays).detach();
    auto const expected =
        plain_gradients_of(small, result.weights.velocity.item<double>(), result.weights.render.item<double>());
    EXPECT_GT(expected.at("transformer_encoder.0.attn.fc.weight").norm().item<double>(), 0);
    EXPECT_LT(largest_distance(found, expected), kRounding);
  }
}

// |a| = 5, |b| = 2 in the plane: closed form.
TEST(PcgradTest, TakesFromEachWhatPointsAgainstTheOther) {
  auto const at_plane = [](double x, double y) { return at::tensor({x, y, 0.0, 0.0}, at::kFloat).view({1, 2, 2}); };
  at::Tensor const one = at::ones({}, at::kFloat);
  at::Tensor sums = at::zeros({3}, at::kDouble);
  auto const combined = [&](at::Tensor const& a, at::Tensor const& b) {
    return combine_at_cut(a, one, b, sums, CutRule::sum_without_conflict);
  };
  // a = (3, 4), b = (-2, 0): a' = (0, 4), b' = b + 6/25 a = (-1.28, 0.96)
  EXPECT_LT(test::relative_error(combined(at_plane(3, 4), at_plane(-2, 0)), at_plane(-1.28, 4.96)), 1e-6);
  EXPECT_LT(test::relative_error(sums, at::tensor({25.0, 4.0, -6.0}, at::kDouble)), 1e-6);  // before the surgery
  EXPECT_TRUE(at::equal(combined(at_plane(3, 4), at_plane(2, 0)), at_plane(5, 4)));         // no conflict
  EXPECT_TRUE(at::equal(combined(at_plane(3, 4), at_plane(-4, 3)), at_plane(-1, 7)));       // at right angles
  EXPECT_LT(combined(at_plane(3, 4), at_plane(-3, -4)).abs().max().item<double>(), 1e-6);   // opposite: nothing is left
  EXPECT_TRUE(at::equal(combined(at_plane(3, 4), at_plane(0, 0)), at_plane(3, 4)));
}

TEST(PcgradTest, SamplesAreTreatedOneByOneAndWeighted) {
  at::Tensor const g_v = at::tensor({3.0, 4.0, 3.0, 4.0}, at::kFloat).view({2, 1, 2});
  at::Tensor const g_r = at::tensor({-2.0, 0.0, 2.0, 0.0}, at::kFloat).view({2, 1, 2});
  at::Tensor const half = at::full({}, 0.5, at::kFloat);
  at::Tensor sums = at::zeros({3}, at::kDouble);
  at::Tensor const found = combine_at_cut(g_v, half, g_r, sums, CutRule::sum_without_conflict);
  // Sample 0: a = (1.5, 2), a . b = -3: (0, 2) + (-2, 0) + 3/6.25 (1.5, 2) = (-1.28, 2.96); sample 1: the sum.
  EXPECT_LT(test::relative_error(found, at::tensor({-1.28, 2.96, 3.5, 2.0}, at::kFloat).view({2, 1, 2})), 1e-6);
}

TEST(PcgradTest, ANonFiniteGradientStaysOneForTheSkip) {
  at::Tensor const one = at::ones({}, at::kFloat);
  at::Tensor sums = at::zeros({3}, at::kDouble), bad = at::ones({1, 2, 2}, at::kFloat);
  bad.view({-1})[0].fill_(std::nan(""));
  EXPECT_FALSE(at::isfinite(combine_at_cut(bad, one, -at::ones({1, 2, 2}), sums, CutRule::sum_without_conflict))
                   .all()
                   .item<bool>());
}

TEST(PcgradTest, OfWholeNetworksIsThePaperRuleAtVPred) {
  SmallJoint small;
  auto const result = run_whole_step(small, lambdas(), test::named("pcgrad"), true);
  auto const found = small.gradients();
  small.clear_gradients();
  auto const plain = plain_forward(small.model, small.batch);
  at::Tensor const a = torch::autograd::grad({kLambdaV * plain.velocity}, {plain.v_pred}, {}, true)[0];
  at::Tensor const b = torch::autograd::grad({kLambdaR * plain.render}, {plain.v_pred}, {}, true)[0];
  at::Tensor g = at::zeros_like(a);
  int conflicts = 0;
  for (std::int64_t i = 0; i < a.size(0); ++i) {
    double const dot = (a[i] * b[i]).sum(at::kDouble).item<double>();
    conflicts += dot < 0 ? 1 : 0;
    double const along_b = dot < 0 ? dot / b[i].square().sum(at::kDouble).item<double>() : 0;
    double const along_a = dot < 0 ? dot / a[i].square().sum(at::kDouble).item<double>() : 0;
    g[i].copy_((a[i] - along_b * b[i]) + (b[i] - along_a * a[i]));
  }
  std::vector<at::Tensor> renderer;
  for (auto const& parameter : small.model.parameters())
    if (parameter.part == Part::renderer && parameter.tensor.requires_grad()) renderer.push_back(parameter.tensor);
  auto const of_renderer = torch::autograd::grad({kLambdaR * plain.render}, renderer, {}, true);
  torch::autograd::backward({plain.v_pred}, {g});
  for (std::size_t i = 0; i < renderer.size(); ++i) renderer[i].grad().copy_(of_renderer[i]);
  EXPECT_LT(largest_distance(found, small.gradients()), 3e-6);
  EXPECT_GT(conflicts, 0);
  EXPECT_EQ(result.weights.velocity.item<double>(), 1);
}

}  // namespace
}  // namespace duoflow::model
