#include "model/metrics.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::model {

namespace {

void check_shapes(at::Tensor const& image, at::Tensor const& target) {
  if (image.sizes() == target.sizes()) return;
  throw std::invalid_argument(fmt::format("the images to compare are [{}] and [{}], give both the same shape",
                                          fmt::join(image.sizes(), ","), fmt::join(target.sizes(), ",")));
}

constexpr double kSigma = 1.5;

at::Tensor gaussian_window(at::TensorOptions const& options) {
  at::Tensor const offset = at::arange(kSsimWindow, options) - (kSsimWindow - 1) / 2;
  at::Tensor const weight = (offset.square() / (-2 * kSigma * kSigma)).exp();
  return weight / weight.sum();
}

// [N,C,H-10,W-10] in fp64: one number per window.
at::Tensor ssim_map(at::Tensor const& image, at::Tensor const& target) {
  check_shapes(image, target);
  std::int64_t const height = image.size(2), width = image.size(3);
  if (height < kSsimWindow || width < kSsimWindow) {
    throw std::invalid_argument(fmt::format(
        "SSIM's window of {0} x {0} does not fit into {1} x {2} pixels, give larger images", kSsimWindow, height, width));
  }
  // In fp64: the variances are small differences of large means.
  at::Tensor const x = image.to(at::kDouble).flatten(0, 1).unsqueeze(1);
  at::Tensor const y = target.to(at::kDouble).flatten(0, 1).unsqueeze(1);
  at::Tensor const window = gaussian_window(x.options());
  at::Tensor const column = window.view({1, 1, kSsimWindow, 1}), row = window.view({1, 1, 1, kSsimWindow});
  auto const local_mean = [&](at::Tensor const& map) { return at::conv2d(at::conv2d(map, column), row); };

  at::Tensor const mean_x = local_mean(x), mean_y = local_mean(y);
  at::Tensor const var_x = local_mean(x * x) - mean_x * mean_x;
  at::Tensor const var_y = local_mean(y * y) - mean_y * mean_y;
  at::Tensor const covariance = local_mean(x * y) - mean_x * mean_y;
  constexpr double c1 = 0.01 * 0.01, c2 = 0.03 * 0.03;  // Wang et al. 2004, data range 1
  at::Tensor const map = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) /
                         ((mean_x * mean_x + mean_y * mean_y + c1) * (var_x + var_y + c2));
  return map.view({image.size(0), image.size(1), map.size(2), map.size(3)});
}

}  // namespace

at::Tensor psnr_of_mse(at::Tensor const& mse) { return (-10 * mse.log10()).clamp_max(100); }

at::Tensor psnr_per_image(at::Tensor const& image, at::Tensor const& target) {
  check_shapes(image, target);
  return psnr_of_mse((image - target).square().flatten(1).mean(1));
}

at::Tensor psnr_per_image_masked(at::Tensor const& image, at::Tensor const& target, at::Tensor const& mask) {
  check_shapes(image, target);
  return psnr_of_mse(masked_mean((image - target).square(), mask));
}

at::Tensor masked_mean(at::Tensor const& map, at::Tensor const& mask) {
  at::Tensor const inside = at::where(mask.unsqueeze(1), map, at::zeros({}, map.options()));
  return inside.flatten(1).sum(1) / (mask.flatten(1).sum(1) * map.size(1));
}

at::Tensor ssim_per_image(at::Tensor const& image, at::Tensor const& target) {
  return ssim_map(image, target).flatten(1).mean(1).to(at::kFloat);
}

at::Tensor window_centres(at::Tensor const& mask) {
  constexpr std::int64_t border = kSsimWindow / 2;
  return mask.narrow(1, border, mask.size(1) - 2 * border).narrow(2, border, mask.size(2) - 2 * border);
}

at::Tensor ssim_per_image_masked(at::Tensor const& image, at::Tensor const& target, at::Tensor const& mask) {
  return masked_mean(ssim_map(image, target), window_centres(mask)).to(at::kFloat);
}

}  // namespace duoflow::model
