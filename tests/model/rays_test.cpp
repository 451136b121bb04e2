#include "model/rays.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow::model {
namespace {

// Camera at (1,2,3): its x axis to world y, its y axis to world -z, hence looking (its z axis) to world -x.
at::Tensor pose() {
  return at::tensor({0.F, 0.F, -1.F, 1.F, 1.F, 0.F, 0.F, 2.F, 0.F, -1.F, 0.F, 3.F, 0.F, 0.F, 0.F, 1.F}).view({1, 1, 4, 4});
}

at::Tensor intrinsics(float f, float c) { return at::tensor({f, 2 * f, c, c}).view({1, 1, 4}); }

void expect_ray(at::Tensor const& rays, std::int64_t row, std::int64_t column, std::array<double, 6> const& expected) {
  for (std::int64_t i = 0; i < 6; ++i) {
    EXPECT_NEAR(rays[0][0][i][row][column].item<double>(), expected[static_cast<std::size_t>(i)], 1e-6) << "component " << i;
  }
}

TEST(RaysTest, CentrePixelLooksAlongTheForwardAxis) {  // principal point 1.5: the centre of pixel 1 of 3
  // o x d = (1,2,3) x (-1,0,0) = (0,-3,2)
  expect_ray(pluecker_rays(pose(), intrinsics(5, 1.5F), 3, 3), 1, 1, {0, -3, 2, -1, 0, 0});
}

TEST(RaysTest, ColumnsFollowTheCamerasXAxisAndRowsItsYAxis) {
  at::Tensor const rays = pluecker_rays(pose(), intrinsics(1, 1.5F), 3, 3);
  // column 2: camera (1,0,1) -> world (-1,1,0); row 2 with fy = 2: camera (0,0.5,1) -> world (-1,0,-0.5)
  double const a = 1 / std::sqrt(2.0), b = 1 / std::sqrt(1.25);
  expect_ray(rays, 1, 2, {2 * 0 - 3 * a, 3 * -a - 1 * 0, 1 * a - 2 * -a, -a, a, 0});
  expect_ray(rays, 2, 1, {2 * -0.5 * b - 0, 3 * -b - 1 * -0.5 * b, 0 - 2 * -b, -b, 0, -0.5 * b});
}

TEST(RaysTest, MomentIsOrthogonalToTheUnitDirection) {
  at::Tensor const rays = pluecker_rays(pose(), intrinsics(7, 3), 5, 8).to(at::kDouble);
  at::Tensor const moment = rays.narrow(2, 0, 3), direction = rays.narrow(2, 3, 3);
  EXPECT_LT((moment * direction).sum(2).abs().max().item<double>(), 1e-6);
  EXPECT_LT(((direction * direction).sum(2) - 1).abs().max().item<double>(), 1e-6);
}

TEST(RaysTest, AreFp32ForAnyInputType) {
  at::Tensor const rays = pluecker_rays(pose().to(at::kDouble), intrinsics(5, 1).to(at::kDouble), 2, 4);
  EXPECT_EQ(rays.scalar_type(), at::kFloat);
  EXPECT_EQ(rays.sizes(), at::IntArrayRef({1, 1, 6, 2, 4}));
}

}  // namespace
}  // namespace duoflow::model
