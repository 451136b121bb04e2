#pragma once
#include <ATen/core/Tensor.h>

namespace duoflow::model {

// Pluecker rays [B,V,6,H,W] = [o x d, d], fp32: pixel (i,j) looks through (i+0.5-cx)/fx, (j+0.5-cy)/fy, 1 (OpenCV axes).
// c2w [B,V,4,4], fxfycxcy [B,V,4] in pixels of an H x W picture.
at::Tensor pluecker_rays(at::Tensor const& c2w, at::Tensor const& fxfycxcy, std::int64_t height, std::int64_t width);

}  // namespace duoflow::model
