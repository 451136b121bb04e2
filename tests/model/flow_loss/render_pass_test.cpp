#include "model/render_pass.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/model/flow_loss/small_joint.h"
#include "tests/model/loss_networks.h"

namespace duoflow::model {
namespace {

RenderLossOptions every_term(std::int64_t view_chunk) {
  RenderLossOptions options;
  options.l1_weight = 0.3, options.gradient_weight = 0.2, options.lpips_weight = 0.5, options.perceptual_weight = 0.02;
  options.perceptual_min_t = 0.4, options.perceptual_crop = 10;
  options.seed = 11;
  options.networks = test::tiny_networks();
  options.view_chunk = view_chunk;
  return options;
}

struct Pass {
  RenderedViews views;
  test::Tensors gradients;
  int measured = 0;
};

// The batch has two samples of three target views.
Pass pass(std::int64_t view_chunk) {
  SmallJoint small;
  Pass result;
  at::Tensor const latents = small.batch.x0.detach().requires_grad_(true);
  result.views = render_and_walk_back(small.model, RenderLoss(every_term(view_chunk)), latents, small.batch.target_rays,
                                      small.batch.target_image, {small.batch.t, {5, 9}}, {0.7},
                                      [&](RenderedViews const& measured) {
                                        ++result.measured;
                                        EXPECT_TRUE(measured.loss.defined());
                                      });
  result.gradients = small.gradients(Part::renderer);
  EXPECT_FALSE(latents.grad().defined());  // the caller walks on
  return result;
}

TEST(RenderPassTest, ChunksOfViewsGiveTheLossesAndGradientsOfAllAtOnce) {
  Pass const whole = pass(0);
  EXPECT_EQ(whole.measured, 1);
  for (std::int64_t const chunk : {1, 2, 3, 8}) {
    Pass const parts = pass(chunk);
    EXPECT_EQ(parts.measured, 1);
    EXPECT_TRUE(at::allclose(parts.views.image, whole.views.image, 0, 1e-6)) << chunk;
    for (auto const member : {&RenderedViews::loss, &RenderedViews::lpips, &RenderedViews::perceptual,
                              &RenderedViews::mse, &RenderedViews::psnr})
      EXPECT_LT(test::relative_error(parts.views.*member, whole.views.*member), 1e-6) << chunk;
    EXPECT_LT(test::relative_error(parts.views.gradient, whole.views.gradient), 1e-5) << chunk;
    EXPECT_LT(largest_distance(parts.gradients, whole.gradients), 1e-5) << chunk;
  }
  EXPECT_THROW(RenderLoss(every_term(-1)), std::invalid_argument);
}

TEST(RenderPassTest, TheStatisticsAreHandedOverBeforeTheLastChunksGradientsAndAfterTheOthers) {
  SmallJoint small;
  test::Tensors before;
  render_and_walk_back(small.model, RenderLoss(every_term(1)), small.batch.x0, small.batch.target_rays,
                       small.batch.target_image, {small.batch.t}, {1},
                       [&](RenderedViews const&) { before = small.gradients(Part::renderer); });
  auto const after = small.gradients(Part::renderer);
  auto const name = std::string("image_token_decoder.1.weight");
  EXPECT_GT(before.at(name).norm().item<float>(), 0);
  EXPECT_FALSE(at::equal(before.at(name), after.at(name)));
}

TEST(RenderPassTest, ConstantLatentsHaveNoGradient) {
  SmallJoint small;
  auto const views =
      render_and_walk_back(small.model, RenderLoss(every_term(0)), small.batch.x0, small.batch.target_rays,
                           small.batch.target_image, {small.batch.t}, {1}, [](RenderedViews const&) {});
  EXPECT_FALSE(views.gradient.defined());
}

// Samples that are shown no light: nothing of their maps reaches the velocity, and the others are as without them.
TEST(LightDropoutTest, ASampleWithoutLightIsTheSampleWithTokensOfZeros) {
  SmallJoint small;
  at::NoGradGuard const no_graph;
  auto const light = small.model.light_tokens(small.batch.env);
  auto const kept = small.model.light_tokens(small.batch.env, at::tensor(std::vector<float>{1, 0}));
  EXPECT_TRUE(at::equal(kept[0], light[0]));
  EXPECT_TRUE(at::equal(kept[1], at::zeros_like(light[1])));
}

TEST(LightDropoutTest, TheTokenizerLearnsFromSamplesThatAreShownTheirLightAlone) {
  auto const gradient = [](std::vector<float> const& kept) {
    SmallJoint small;
    small.batch.light_kept = at::tensor(kept);
    run_whole_step(small, {}, {}, true);
    return small.gradients().at("env_tokenizer.1.weight");
  };
  EXPECT_EQ(gradient({0, 0}).abs().max().item<float>(), 0);
  EXPECT_LT(test::relative_error(gradient({1, 0}) + gradient({0, 1}), gradient({1, 1})), 1e-5);
}

}  // namespace
}  // namespace duoflow::model
