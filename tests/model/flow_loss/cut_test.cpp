// The cut at v_pred against what it replaces: one plain backward() of the weighted sum on one graph.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/model/flow_loss/small_joint.h"

namespace duoflow::model {
namespace {

TEST(CutEqualsBackwardTest, WithFixedWeights) {
  SmallJoint small;
  auto const expected = plain_gradients(small, 0.7, 1.3);
  for (auto const& [name, gradient] : expected) EXPECT_GT(gradient.norm().item<double>(), 0) << name;
  small.clear_gradients();
  run_whole_step(small, test::lambdas(0.7, 1.3), test::named("fixed"), true);
  EXPECT_LT(largest_distance(small.gradients(), expected), kRounding);
}

TEST(CutEqualsBackwardTest, WithNormalizedWeightsKnownOnlyAtTheCut) {
  SmallJoint small;
  auto const result = run_whole_step(small, test::lambdas(0.7, 1.3), test::named("normalized"), true);
  auto const cut = small.gradients();
  double const w_v = result.weights.velocity.item<double>();
  EXPECT_NE(w_v, 1);
  EXPECT_LT(largest_distance(cut, plain_gradients(small, 0.7 * w_v, 1.3)), kRounding);
}

TEST(CutEqualsBackwardTest, WithScheduledWeightsInTheRenderersGradientsToo) {
  SmallJoint small;
  auto const expected = plain_gradients(small, 0.7 * 0.5, 1.3 * 2.0);
  small.clear_gradients();
  run_whole_step(small, test::lambdas(0.7, 1.3), test::named("schedule"), true, 1000);
  EXPECT_LT(largest_distance(small.gradients(), expected), kRounding);
}

TEST(CutEqualsBackwardTest, WhenTheEditorIsRunAgainInsteadOfKept) {
  SmallJoint small;
  auto const expected = plain_gradients(small, 0.7, 1.3);
  small.clear_gradients();
  auto const result = run_whole_step(small, test::lambdas(0.7, 1.3), test::named("fixed"), false);
  EXPECT_FALSE(result.at_cut.v_pred_graph.defined());
  EXPECT_LT(largest_distance(small.gradients(), expected), kRounding);
}

TEST(CutEqualsBackwardTest, WithOneLossAlone) {
  SmallJoint small;
  for (auto const& [v, r] : {std::pair{2.0, 0.0}, std::pair{0.0, 2.0}}) {
    auto const expected = plain_gradients(small, v, r);
    small.clear_gradients();
    run_whole_step(small, test::lambdas(v, r), test::named("fixed"), true);
    EXPECT_LT(largest_distance(small.gradients(), expected), kRounding) << v << " " << r;
  }
}

TEST(CutEqualsBackwardTest, SummedOverMicroStepsOfTheSameGlobalBatch) {
  SmallJoint small;
  auto const weighting = make_weighting(test::named("normalized"), at::kCPU);
  JointStep joint(small.model, test::lambdas(0.7, 1.3), *weighting);
  JointBatch const parts[2] = {part_of(small.batch, 0, 1), part_of(small.batch, 1, 2)};
  at::Tensor sums = at::zeros({kStatisticCount}, at::kDouble), cut_sums = at::zeros({3}, at::kDouble);
  AtCut cuts[2];
  for (int k : {0, 1}) {
    cuts[k] = joint.run_to_cut(parts[k], 0, 2, false, [&](at::Tensor const& local) { sums += local; });
  }
  LossWeights const weights = joint.combine(sums, 0);
  for (int k : {0, 1}) joint.run_from_cut(parts[k], cuts[k], weights, cut_sums);
  auto const split = small.gradients();

  small.clear_gradients();
  auto const whole = run_whole_step(small, test::lambdas(0.7, 1.3), test::named("normalized"), true);
  EXPECT_LT(largest_distance(split, small.gradients()), kRounding);
  EXPECT_LT(test::relative_error(sums, whole.sums), kRounding);
  EXPECT_LT(test::relative_error(cut_sums, whole.cut_sums), kRounding);
}

// With online latents the cut is at v_pred, x_t and the target together, and x1 is encoded without a graph.
TEST(CutEqualsBackwardTest, IntoAReconstructorThatTrains) {
  for (bool const keep_graph : {true, false}) {
    SmallJoint small;
    small.model.set_trainable(Part::reconstructor, true);
    auto const& pictures = small.reconstruction;
    at::Tensor const relit = 1 - pictures.input_image;
    for (auto const& [v, r] : {std::pair{0.7, 1.3}, std::pair{2.0, 0.0}, std::pair{0.0, 2.0}}) {
      small.batch.x0 = small.model.reconstruct(pictures.input_image, pictures.input_rays);
      small.batch.x1 = small.model.reconstruct(relit, pictures.input_rays).detach();
      auto const expected = plain_gradients(small, v, r);
      EXPECT_GT(expected.at("transformer_encoder.0.attn.fc.weight").norm().item<double>(), 0);
      small.clear_gradients();
      auto const x0 = small.batch.x0, x1 = small.batch.x1;
      small.batch.x0 = small.batch.x1 = at::Tensor();
      small.batch.input_image = pictures.input_image, small.batch.input_rays = pictures.input_rays;
      small.batch.relit_image = relit;
      auto const result = run_whole_step(small, test::lambdas(v, r), test::named("fixed"), keep_graph);
      EXPECT_LT(largest_distance(small.gradients(), expected), kRounding) << v << " " << r << " " << keep_graph;
      EXPECT_TRUE(at::equal(result.at_cut.x0, x0));
      EXPECT_TRUE(at::equal(result.at_cut.x1, x1));
      EXPECT_NEAR(result.sums[kLatentStd].item<double>(), x0.flatten(1).std(1).sum().item<double>(), 1e-6);
    }
  }
}

TEST(CutEqualsBackwardTest, OfOnlineLatentsWithAFrozenReconstructorIsThatOfConstants) {
  SmallJoint small;
  auto const& pictures = small.reconstruction;
  small.batch.x0 = small.model.reconstruct(pictures.input_image, pictures.input_rays);
  small.batch.x1 = small.model.reconstruct(1 - pictures.input_image, pictures.input_rays);
  run_whole_step(small, test::lambdas(0.7, 1.3), test::named("fixed"), true);
  auto const expected = small.gradients();
  small.clear_gradients();
  small.batch.x0 = small.batch.x1 = at::Tensor();
  small.batch.input_image = pictures.input_image, small.batch.input_rays = pictures.input_rays;
  small.batch.relit_image = 1 - pictures.input_image;
  auto const result = run_whole_step(small, test::lambdas(0.7, 1.3), test::named("fixed"), true);
  EXPECT_EQ(largest_distance(small.gradients(), expected), 0);
  EXPECT_FALSE(result.at_cut.g_x_t.defined());
}

// Tolerances as between two fp32 implementations: activations 5e-6, losses 1e-6, gradients 3e-5.
TEST(CutEqualsBackwardTest, OfTheMethodWrittenInPyTorch) {
  auto const golden = test::golden("flow_loss", "joint.");
  auto const expected = [&](std::string const& name) { return golden.at(name); };
  SmallJoint small;
  auto const result = run_whole_step(small, test::lambdas(0.7, 1.3), test::named("normalized"), true);
  AtCut const& at_cut = result.at_cut;
  EXPECT_LT(test::relative_error(at_cut.x_t, expected("x_t")), 5e-6);
  EXPECT_LT(test::relative_error(at_cut.v_pred, expected("velocity")), 5e-6);
  EXPECT_LT(test::relative_error(at_cut.x_hat, expected("x_hat")), 5e-6);
  EXPECT_LT(test::relative_error(at_cut.image, expected("render")), 5e-6);
  at::Tensor const means = result.sums / result.sums[kSamples];
  EXPECT_LT(test::relative_error(means[kVelocityLoss], expected("velocity_loss")), 1e-6);
  EXPECT_LT(test::relative_error(means[kRenderLoss], expected("render_loss")), 1e-6);
  EXPECT_LT(test::relative_error(means[kMse], expected("render_loss")), 1e-6);
  EXPECT_LT(test::relative_error(means[kPsnr], expected("psnr")), 1e-6);
  EXPECT_LT(test::relative_error(result.weights.velocity, expected("velocity_weight")), 2e-6);

  at::Tensor const g = 0.7 * result.weights.velocity * at_cut.g_velocity + at_cut.g_render;
  EXPECT_LT(test::relative_error(g, expected("g")), 3e-5);
  for (auto const& [name, gradient] : small.gradients()) {
    EXPECT_LT(test::relative_error(gradient.to(at::kDouble).norm(), expected("grad_norm." + name)), 3e-5) << name;
    if (golden.count("grad." + name)) {
      EXPECT_LT(test::relative_error(gradient, expected("grad." + name)), 3e-5) << name;
    }
  }
}

}  // namespace
}  // namespace duoflow::model
