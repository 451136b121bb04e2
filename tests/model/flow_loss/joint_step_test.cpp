#include "model/joint_step.h"

#include <cmath>
#include <map>
#include <memory>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/metrics.h"
#include "tests/model/flow_loss/small_joint.h"

namespace duoflow::model {
namespace {

double total_norm(test::Tensors const& gradients) {
  double sum = 0;
  for (auto const& [name, gradient] : gradients) sum += gradient.norm().item<double>();
  return sum;
}

std::map<std::string, void*> gradient_addresses(SceneModel const& model) {
  std::map<std::string, void*> result;
  for (auto const& p : model.parameters()) {
    if (p.tensor.requires_grad()) result[p.name] = p.tensor.grad().data_ptr();
  }
  return result;
}

class JointStepTest : public testing::Test {
 protected:
  std::unique_ptr<Weighting> weighting(std::string const& name) {
    WeightingOptions options;
    options.name = name;
    return make_weighting(options, at::kCPU);
  }
  SmallJoint small;
};

TEST_F(JointStepTest, StatisticsAreHandedOverAfterTheForwardAndBeforeAnyGradient) {
  auto const fixed = weighting("fixed");
  JointStep joint(small.model, {}, *fixed);
  auto const addresses = gradient_addresses(small.model);
  int calls = 0;
  AtCut const at_cut = joint.run_to_cut(small.batch, 0, 2, true, [&](at::Tensor const& sums) {
    ++calls;
    EXPECT_EQ(sums.sizes(), (at::IntArrayRef{kStatisticCount}));
    EXPECT_EQ(sums.scalar_type(), at::kDouble);
    EXPECT_GT(sums[kRenderLoss].item<double>(), 0);
    EXPECT_EQ(total_norm(small.gradients()), 0);
  });
  EXPECT_EQ(calls, 1);
  EXPECT_GT(total_norm(small.gradients(Part::renderer)), 0);
  EXPECT_EQ(total_norm(small.gradients(Part::editor)), 0);

  at::Tensor cut_sums = at::zeros({3}, at::kDouble);
  auto const renderer = small.gradients(Part::renderer);
  joint.run_from_cut(small.batch, at_cut, joint.combine(at::ones({kStatisticCount}, at::kDouble), 0), cut_sums);
  EXPECT_GT(total_norm(small.gradients(Part::editor)), 0);
  EXPECT_EQ(largest_distance(small.gradients(Part::renderer), renderer), 0);
  EXPECT_EQ(gradient_addresses(small.model), addresses);  // added in place
}

TEST_F(JointStepTest, SlotsAreSumsOverTheSamples) {
  auto const result = run_whole_step(small, {}, {}, true);
  AtCut const& c = result.at_cut;
  at::Tensor const& target = small.batch.target_image;
  at::Tensor const psnr = psnr_per_image(c.image.flatten(0, 1), target.flatten(0, 1)).view({2, 3}).mean(1);
  auto const slot = [&](int i) { return result.sums[i].item<double>(); };
  EXPECT_NEAR(slot(kVelocityLoss), c.velocity_loss.sum().item<double>(), 1e-6);
  EXPECT_NEAR(slot(kRenderLoss), c.render_loss.sum().item<double>(), 1e-6);
  EXPECT_NEAR(slot(kMse), (c.image - target).square().sum().item<double>() / (3 * 3 * 16 * 16), 1e-6);
  EXPECT_NEAR(slot(kPsnr), psnr.sum().item<double>(), 1e-5);
  EXPECT_EQ(slot(kSamples), 2);
  EXPECT_EQ(slot(kNonFinite), 0);
  for (int i : {kGradVelocitySq, kGradRenderSq, kGradDot}) EXPECT_EQ(slot(i), 0);
}

TEST_F(JointStepTest, CutSumsMeasureTheWeightedGradients) {
  JointLossOptions losses;
  losses.lambda_v = 0.7, losses.lambda_r = 1.3;
  WeightingOptions options;
  options.name = "normalized";
  auto const result = run_whole_step(small, losses, options, true);
  at::Tensor const v = 0.7 * result.weights.velocity.to(at::kDouble) * result.at_cut.g_velocity.to(at::kDouble);
  at::Tensor const r = result.at_cut.g_render.to(at::kDouble);
  EXPECT_LT(test::relative_error(result.cut_sums, at::stack({(v * v).sum(), (r * r).sum(), (v * r).sum()})), 1e-6);
}

TEST_F(JointStepTest, ALossOfZeroWeightIsNotComputed) {
  JointLossOptions losses;
  losses.lambda_r = 0;
  small.batch.target_rays = at::Tensor();  // touching these would throw
  small.batch.target_image = at::Tensor();
  auto const result = run_whole_step(small, losses, {}, false);
  EXPECT_FALSE(result.at_cut.image.defined());
  EXPECT_FALSE(result.at_cut.g_render.defined());
  for (int i : {kRenderLoss, kMse, kPsnr, kNonFinite}) EXPECT_EQ(result.sums[i].item<double>(), 0);
  EXPECT_EQ(result.sums[kSamples].item<double>(), 2);
  EXPECT_EQ(total_norm(small.gradients(Part::renderer)), 0);

  SmallJoint other;
  losses.lambda_r = 1, losses.lambda_v = 0;
  auto const render_only = run_whole_step(other, losses, {}, true);
  EXPECT_FALSE(render_only.at_cut.g_velocity.defined());
  EXPECT_EQ(render_only.sums[kVelocityLoss].item<double>(), 0);
}

TEST_F(JointStepTest, AScheduleMaySwitchBothLossesOff) {
  WeightingOptions options;
  options.name = "schedule";
  options.velocity_start = options.render_start = 0;
  run_whole_step(small, {}, options, true);
  EXPECT_EQ(total_norm(small.gradients()), 0);
}

TEST_F(JointStepTest, ANonFiniteSampleIsCountedAndStaysOutOfTheWeight) {
  auto const normalized = weighting("normalized");
  JointStep joint(small.model, {}, *normalized);
  at::Tensor sums;
  auto const keep = [&](at::Tensor const& local) { sums = local; };
  joint.run_to_cut(small.batch, 0, 2, false, keep);
  double const w = joint.combine(sums, 0).velocity.item<double>();

  JointBatch bad = small.batch;
  bad.x1 = bad.x1.clone();
  bad.x1[1][0][0] = std::nan("");
  joint.run_to_cut(bad, 1, 2, false, keep);
  EXPECT_EQ(sums[kNonFinite].item<double>(), 1);
  EXPECT_EQ(sums[kSamples].item<double>(), 2);
  EXPECT_TRUE(std::isnan(sums[kVelocityLoss].item<double>()));
  EXPECT_EQ(joint.combine(sums, 1).velocity.item<double>(), w);
}

TEST_F(JointStepTest, AnUnusableCombinationIsAnError) {
  auto const fixed = weighting("fixed"), normalized = weighting("normalized");
  auto const make = [&](double v, double r, double l2, Weighting& strategy) {
    JointLossOptions losses;
    losses.lambda_v = v, losses.lambda_r = r, losses.render.l2_weight = l2;
    JointStep const joint(small.model, losses, strategy);
  };
  EXPECT_THROW(make(0, 0, 1, *fixed), std::invalid_argument);
  EXPECT_THROW(make(-1, 1, 1, *fixed), std::invalid_argument);
  EXPECT_THROW(make(1, std::nan(""), 1, *fixed), std::invalid_argument);
  EXPECT_THROW(make(1, 0, 1, *normalized), std::invalid_argument);
  EXPECT_THROW(make(0, 1, 1, *normalized), std::invalid_argument);
  EXPECT_THROW(make(1, 1, 0, *normalized), std::invalid_argument);
  EXPECT_NO_THROW(make(1, 0, 0, *fixed));
}

TEST_F(JointStepTest, ReconstructionEqualsAPlainBackward) {
  small.model.set_trainable(Part::reconstructor, true);
  small.clear_gradients();
  auto const& b = small.reconstruction;
  at::Tensor const loss =
      2 * at::mse_loss(small.model.render(small.model.reconstruct(b.input_image, b.input_rays), b.target_rays),
                       b.target_image);
  torch::autograd::backward({loss}, {at::ones_like(loss)});
  auto const expected = small.gradients();

  small.clear_gradients();
  RenderLossOptions options;
  options.l2_weight = 2;
  at::Tensor sums;
  at::Tensor const image = reconstruction_step(small.model, RenderLoss(options), b, 2, [&](at::Tensor const& local) {
    sums = local;
    EXPECT_EQ(total_norm(small.gradients()), 0);
  });
  EXPECT_LT(largest_distance(small.gradients(), expected), 1e-6);
  EXPECT_FALSE(image.requires_grad());
  EXPECT_NEAR(sums[kRenderLoss].item<double>(), 2 * loss.item<double>(), 1e-6);
  EXPECT_NEAR(sums[kMse].item<double>(), loss.item<double>(), 1e-6);
  EXPECT_EQ(sums[kSamples].item<double>(), 2);
  EXPECT_EQ(sums[kVelocityLoss].item<double>(), 0);

  options.l2_weight = 0;
  EXPECT_THROW(reconstruction_step(small.model, RenderLoss(options), b, 2, [](at::Tensor const&) {}),
               std::invalid_argument);
}

}  // namespace
}  // namespace duoflow::model
