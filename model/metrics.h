#pragma once
#include <ATen/core/Tensor.h>

namespace duoflow::model {

// image, target [N,3,H,W] in [0,1] -> [N]; -10 log10(mse per image); +inf is capped at 100 dB.
at::Tensor psnr_per_image(at::Tensor const& image, at::Tensor const& target);
at::Tensor psnr_of_mse(at::Tensor const& mse);  // element by element
// mask [N,H,W] bool: mean square over masked pixels only; NaN where the mask is empty.
at::Tensor psnr_per_image_masked(at::Tensor const& image, at::Tensor const& target, at::Tensor const& mask);
// Wang et al. 2004: Gaussian window 11, sigma 1.5, data range 1, valid region only (no padding), mean over channels -> [N].
// What scikit-image's structural_similarity gives with gaussian_weights=True, sigma=1.5, use_sample_covariance=False.
inline constexpr std::int64_t kSsimWindow = 11;
at::Tensor ssim_per_image(at::Tensor const& image, at::Tensor const& target);
// The same map's mean over the windows whose centre is masked; NaN where there is none.
// The masked pixels that are some window's centre: [N,H-10,W-10] of mask [N,H,W].
at::Tensor window_centres(at::Tensor const& mask);
at::Tensor ssim_per_image_masked(at::Tensor const& image, at::Tensor const& target, at::Tensor const& mask);

// [N,C,H,W], mask [N,H,W] bool -> [N]: mean over the masked pixels of all channels; NaN where the mask is empty.
at::Tensor masked_mean(at::Tensor const& map, at::Tensor const& mask);

}  // namespace duoflow::model
