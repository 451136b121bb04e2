#include "model/metrics.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/model/loss_networks.h"
#include "tests/model/small_model.h"

namespace duoflow::model {
namespace {

TEST(MetricsTest, PsnrAndSsimAgreeWithTheirDefinitions) {
  auto const g = test::golden("flow_loss", "metrics.");
  auto const &image = g.at("image"), &target = g.at("target");
  EXPECT_LT(test::relative_error(psnr_per_image(image, target), g.at("psnr")), 1e-6);
  EXPECT_LT(test::relative_error(psnr_per_image_masked(image, target, g.at("mask")), g.at("psnr_masked")), 1e-6);
  EXPECT_LT(test::relative_error(ssim_per_image(image, target), g.at("ssim")), 1e-6);
}

// tests/golden/make_skimage_values.py prints them.
TEST(MetricsTest, AreTheValuesOfScikitImage) {
  at::Tensor const image = test::formula_images({1, 3, 40, 52}, 0), near = test::formula_images({1, 3, 40, 52}, 0.2),
                   far = test::formula_images({1, 3, 40, 52}, 1);
  EXPECT_NEAR(ssim_per_image(image, near).item<double>(), 0.978129036, 1e-7);
  EXPECT_NEAR(ssim_per_image(image, far).item<double>(), 0.519459073, 1e-7);
  EXPECT_NEAR(psnr_per_image(image, near).item<double>(), 23.906008359, 1e-7);
  EXPECT_NEAR(psnr_per_image(image, far).item<double>(), 10.287850703, 1e-7);
}

TEST(MetricsTest, PsnrOfAKnownDifference) {
  at::Tensor const target = at::zeros({2, 3, 4, 5}),
                   image = at::stack({at::full({3, 4, 5}, 0.1f), at::full({3, 4, 5}, 1.0f)});
  EXPECT_LT((psnr_per_image(image, target) - at::tensor({20.0f, 0.0f})).abs().max().item<double>(), 1e-5);
}

TEST(MetricsTest, EqualImagesHaveOneHundredDecibelsAndSimilarityOne) {
  at::Tensor const image = at::linspace(0, 1, 3 * 12 * 11).view({1, 3, 12, 11});
  EXPECT_EQ(psnr_per_image(image, image).item<double>(), 100);
  EXPECT_EQ(psnr_per_image_masked(image, image, at::ones({1, 12, 11}, at::kBool)).item<double>(), 100);
  EXPECT_NEAR(ssim_per_image(image, image).item<double>(), 1, 1e-6);
}

TEST(MetricsTest, TheMaskKeepsWhatLiesOutsideOut) {
  at::Tensor const target = at::zeros({1, 3, 2, 2});
  at::Tensor image = at::full({1, 3, 2, 2}, 0.1f), mask = at::ones({1, 2, 2}, at::kBool);
  image.select(3, 1).fill_(std::nanf(""));
  mask.select(2, 1).fill_(false);
  EXPECT_NEAR(psnr_per_image_masked(image, target, mask).item<double>(), 20, 1e-5);
  EXPECT_TRUE(std::isnan(psnr_per_image_masked(image, target, at::zeros_like(mask)).item<double>()));
  EXPECT_TRUE(std::isnan(psnr_per_image(image, target).item<double>()));
}

TEST(MetricsTest, MaskedSimilarityIsTheMeanOverTheWindowsWithAMaskedCentre) {
  // 13 x 13 pixels have 3 x 3 windows; one masked pixel gives the similarity of the 11 x 11 pixels around it.
  at::Tensor const target = at::linspace(0, 1, 3 * 13 * 13).view({1, 3, 13, 13}), image = target.square();
  auto const around = [](at::Tensor const& x, std::int64_t row, std::int64_t column) {
    return x.narrow(2, row - 5, 11).narrow(3, column - 5, 11);
  };
  auto const alone = [&](std::int64_t row, std::int64_t column) {
    return ssim_per_image(around(image, row, column), around(target, row, column)).item<double>();
  };
  at::Tensor mask = at::zeros({1, 13, 13}, at::kBool);
  mask[0][5][7] = true;
  EXPECT_NEAR(ssim_per_image_masked(image, target, mask).item<double>(), alone(5, 7), 1e-6);
  mask[0][6][5] = true;
  EXPECT_NEAR(ssim_per_image_masked(image, target, mask).item<double>(), (alone(5, 7) + alone(6, 5)) / 2, 1e-6);
  EXPECT_NEAR(ssim_per_image_masked(image, target, at::ones_like(mask)).item<double>(),
              ssim_per_image(image, target).item<double>(), 1e-6);
  mask.zero_();
  mask[0][0][0] = true;  // in the border, where no window has its centre
  EXPECT_TRUE(std::isnan(ssim_per_image_masked(image, target, mask).item<double>()));
}

TEST(MetricsTest, EmptyBatchesGiveNothingAndBadShapesAnError) {
  at::Tensor const none = at::empty({0, 3, 11, 11});
  EXPECT_EQ(psnr_per_image(none, none).numel(), 0);
  EXPECT_EQ(ssim_per_image(none, none).numel(), 0);
  EXPECT_THROW(psnr_per_image(at::zeros({2, 3, 4, 4}), at::zeros({1, 3, 4, 4})), std::invalid_argument);
  EXPECT_THROW(ssim_per_image(at::zeros({1, 3, 10, 20}), at::zeros({1, 3, 10, 20})), std::invalid_argument);
}

}  // namespace
}  // namespace duoflow::model
