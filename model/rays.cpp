#include "model/rays.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "model/fused/rows.h"
#include "model/fused/shown.h"

#include "model/fused/cuda/operators.h"

namespace duoflow::model {
namespace {

at::Tensor rays_in_one_pass(at::Tensor const& c2w, at::Tensor const& fxfycxcy, std::int64_t height, std::int64_t width) {
  at::Tensor const pose = c2w.to(at::kFloat).contiguous(), intrinsic = fxfycxcy.to(at::kFloat).contiguous();
  at::Tensor const rays = at::empty({pose.size(0), pose.size(1), 6, height, width}, pose.options());
  std::int64_t const numbers = pose.size(2) * pose.size(3);
  Shown const shown("duoflow::pluecker_rays", [&] { return Moves{{pose, intrinsic}, {rays}}; });
  at::parallel_for(0, pose.size(0) * pose.size(1) * height, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      rows::pluecker_rays(pose.const_data_ptr<float>() + i / height * numbers, intrinsic.const_data_ptr<float>() + i / height * 4, i % height, width,
                          height * width, rays.mutable_data_ptr<float>() + (i / height * 6 * height + i % height) * width);
  });
  return rays;
}

}  // namespace

at::Tensor pluecker_rays(at::Tensor const& c2w, at::Tensor const& fxfycxcy, std::int64_t height, std::int64_t width) {
  if (c2w.is_cpu()) return rays_in_one_pass(c2w, fxfycxcy, height, width);
  at::Tensor const pose = c2w.to(at::kFloat);
  if (cuda::takes(pose)) return cuda::pluecker_rays(pose, fxfycxcy.to(at::kFloat), height, width);
  auto const intrinsic = fxfycxcy.to(at::kFloat).unsqueeze(-1).unsqueeze(-1).unbind(2);  // 4 x [B,V,1,1]
  auto const options = pose.options();
  at::Tensor const x = ((at::arange(width, options) + 0.5).view({1, 1, 1, width}) - intrinsic[2]) / intrinsic[0];
  at::Tensor const y = ((at::arange(height, options) + 0.5).view({1, 1, height, 1}) - intrinsic[3]) / intrinsic[1];
  // A product written out: a matrix product could be done in TF32 on a GPU, which is coarser than a pixel.
  auto const column = [&](std::int64_t i) { return pose.narrow(2, 0, 3).select(3, i).unsqueeze(-1).unsqueeze(-1); };  // [B,V,3,1,1]
  at::Tensor direction = column(0) * x.unsqueeze(2) + column(1) * y.unsqueeze(2) + column(2);
  direction = direction / at::sqrt(at::sum(direction * direction, 2, true));
  at::Tensor const origin = column(3).expand_as(direction);
  return at::cat({at::linalg_cross(origin, direction, 2), direction}, 2);
}

}  // namespace duoflow::model
