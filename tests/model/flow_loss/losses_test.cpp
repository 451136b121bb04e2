#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "model/flow/random.h"
#include "model/loss/cut.h"
#include "model/loss/render.h"
#include "model/loss/velocity.h"
#include "tests/model/small_model.h"

namespace duoflow::model {
namespace {

at::Tensor noise(std::vector<std::int64_t> const& shape, std::uint64_t position) {
  return normal_tensor(shape, 5, position, Stream::noise);
}

TEST(VelocityLossTest, IsTheMeanSquareOfEachSample) {
  at::Tensor const v = at::tensor({1.0f, 2.0f, 3.0f, 4.0f, 0.0f, 0.0f, 0.0f, 5.0f}).view({2, 2, 2});
  at::Tensor const loss = velocity_loss(v, at::zeros_like(v));
  EXPECT_TRUE(at::equal(loss, at::tensor({7.5f, 6.25f})));
}

TEST(VelocityLossTest, TheClosedFormGradientIsAutograds) {
  for (std::int64_t const samples : {1, 3}) {
    at::Tensor const v = noise({samples, 5, 4}, 0).requires_grad_(true), target = noise({samples, 5, 4}, 1);
    auto const expected = torch::autograd::grad({velocity_loss(v, target).sum() / 7}, {v})[0];
    EXPECT_LT(test::relative_error(velocity_loss_gradient(v.detach(), target, 7), expected), 2e-7);
  }
}

TEST(RenderLossTest, WeighsTheMeanSquareErrorOfEachSample) {
  RenderLossOptions options;
  options.l2_weight = 2.5;
  RenderLoss const loss(options);
  at::Tensor const image = at::zeros({2, 3, 3, 4, 5}),
                   target = at::stack({at::full({3, 3, 4, 5}, 0.2f), at::full({3, 3, 4, 5}, 0.6f)});
  auto const result = loss(image, target);
  EXPECT_LT(test::relative_error(result.loss, at::tensor({0.1f, 0.9f})), 1e-6);
  ASSERT_EQ(result.terms.size(), 1u);
  EXPECT_EQ(result.terms[0].first, "mse");
  EXPECT_LT(test::relative_error(result.terms[0].second, at::tensor({0.04f, 0.36f})), 1e-6);
}

TEST(RenderLossTest, AnEmptyBatchHasNoLosses) {
  EXPECT_EQ(RenderLoss({})(at::empty({0, 1, 3, 4, 4}), at::empty({0, 1, 3, 4, 4})).loss.numel(), 0);
}

TEST(RenderLossTest, ATermThatIsNotThereOrABadWeightIsAnError) {
  RenderLossOptions options;
  options.lpips_weight = 0.5;
  try {
    RenderLoss const loss(options);
    FAIL() << "accepted";
  } catch (std::invalid_argument const& error) {
    EXPECT_NE(std::string(error.what()).find("'lpips' has a weight but no network"), std::string::npos) << error.what();
  }
  options.lpips_weight = 0, options.l2_weight = -1;
  EXPECT_THROW(RenderLoss{options}, std::invalid_argument);
  options.l2_weight = 0;
  EXPECT_TRUE(RenderLoss(options).empty());
}

TEST(RenderLossTest, ShapesThatWouldBroadcastAreAnError) {
  EXPECT_THROW(RenderLoss({})(at::zeros({2, 3, 3, 4, 4}), at::zeros({2, 1, 3, 4, 4})), std::invalid_argument);
}

TEST(CutTest, AddsTheWeightedGradientsAndTheirSquares) {
  at::Tensor const v = at::tensor({3.0f, 0.0f, 4.0f}).view({1, 1, 3}),
                   r = at::tensor({1.0f, 2.0f, -2.0f}).view({1, 1, 3});
  at::Tensor sums = at::full({3}, 100.0, at::kDouble);
  at::Tensor const g = combine_at_cut(v, at::full({}, 2.0f), r, sums);
  EXPECT_TRUE(at::equal(g.flatten(), at::tensor({7.0f, 2.0f, 6.0f})));
  EXPECT_TRUE(at::equal(sums, at::tensor({200.0, 109.0, 90.0}, at::kDouble)));
}

TEST(CutTest, AMissingGradientCountsAsZero) {
  at::Tensor const x = at::ones({1, 2, 2}), w = at::full({}, 0.5f);
  at::Tensor sums = at::zeros({3}, at::kDouble);
  EXPECT_TRUE(at::equal(combine_at_cut(x, w, {}, sums), 0.5 * x));
  EXPECT_TRUE(at::equal(combine_at_cut({}, w, x, sums), x));
  EXPECT_FALSE(combine_at_cut({}, w, {}, sums).defined());
  EXPECT_TRUE(at::equal(sums, at::tensor({1.0, 4.0, 0.0}, at::kDouble)));
}

}  // namespace
}  // namespace duoflow::model
