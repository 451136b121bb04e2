#pragma once
// Distances of pictures pixel by pixel. image, target [B,...,H,W] of one shape -> [B], means over everything of a
// sample.

#include <ATen/core/Tensor.h>

namespace duoflow::model {

at::Tensor mean_square_error(at::Tensor const& image, at::Tensor const& target);
at::Tensor mean_absolute_error(at::Tensor const& image, at::Tensor const& target);
// Gradient difference loss (Mathieu et al. 2016 with alpha = 1, signed): with e = image - target, the mean of
// |e(i,j+1) - e(i,j)| plus the mean of |e(i+1,j) - e(i,j)|. std::invalid_argument for pictures of one row or column.
at::Tensor gradient_difference(at::Tensor const& image, at::Tensor const& target);

}  // namespace duoflow::model
