#include "data/cameras.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>

#include "../sample_folders.h"
#include "python.h"

namespace duoflow::data::testing {
namespace {

using Pose = std::vector<float>;

// Turned by `yaw` about +Y, `pitch` about the new X, standing at (x, y, z).
Pose pose(double yaw, double pitch, double x, double y, double z) {
  double const cy = std::cos(yaw), sy = std::sin(yaw), cp = std::cos(pitch), sp = std::sin(pitch);
  std::vector<double> const m{cy, sy * sp, sy * cp, x, 0, cp, -sp, y, -sy, cy * sp, cy * cp, z, 0, 0, 0, 1};
  return {m.begin(), m.end()};
}

std::vector<float> views(int count) {
  std::vector<float> out;
  for (int k = 0; k < count; ++k) {
    auto const one = pose(0.3 * k - 0.4, 0.1 * k * k - 0.2, 2 + 0.5 * k, -1 + 0.3 * k * k, 3 - 0.7 * k);
    out.insert(out.end(), one.begin(), one.end());
  }
  return out;
}

void expect_near(std::vector<float> const& a, std::vector<float> const& b, double tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) { EXPECT_NEAR(a[i], b[i], tolerance) << "entry " << i; }
}

TEST(CamerasTest, TwoViewsApartAlongXHaveTheirMiddleAsOrigin) {
  auto c2w = pose(0, 0, 3, 5, 7);
  auto const other = pose(0, 0, 7, 5, 7);
  c2w.insert(c2w.end(), other.begin(), other.end());
  auto const normalisation = normalise_over(c2w);
  EXPECT_FLOAT_EQ(normalisation.scale, 1 / (1.35F * 2));
  auto const out = data::apply(normalisation, c2w);
  float const edge = 1 / 1.35F;
  expect_near(out, {1, 0, 0, -edge, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, edge, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, 1e-6);
}

TEST(CamerasTest, OneViewBecomesTheOriginUnscaled) {
  auto const c2w = pose(0.7, 0.3, 10, 20, 30);
  auto const normalisation = normalise_over(c2w);
  EXPECT_EQ(normalisation.scale, 1);
  expect_near(data::apply(normalisation, c2w), {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, 1e-5);
}

TEST(CamerasTest, AgreesWithTheNumpyTwin) {
  if (!python_has("numpy")) { GTEST_SKIP() << "the project's .venv has no numpy"; }
  TemporaryFolder const folder;
  for (int const count : {2, 5, 12}) {
    auto const c2w = views(count);
    put_bytes(folder / "poses.f32", std::string(reinterpret_cast<char const*>(c2w.data()), c2w.size() * sizeof(float)));
    auto const text = run_python(twin("cameras_twin.py") + " " + (folder / "poses.f32"));
    std::istringstream numbers(text);
    std::vector<float> expected;
    for (double x = 0; numbers >> x;) { expected.push_back(static_cast<float>(x)); }
    ASSERT_EQ(expected.size(), c2w.size()) << text;
    expect_near(data::apply(normalise_over(c2w), c2w), expected, 2e-6);
  }
}

TEST(CamerasTest, WorldToNormMovesCameraCentresToTheNormalisedOnes) {
  auto const c2w = views(5);
  auto const normalisation = normalise_over(c2w);
  auto const out = data::apply(normalisation, c2w);
  auto const m = world_to_norm(normalisation);
  for (std::size_t view = 0; view < 5; ++view) {
    for (std::size_t row = 0; row < 3; ++row) {
      double sum = m[4 * row + 3];
      for (std::size_t k = 0; k < 3; ++k) { sum += static_cast<double>(m[4 * row + k]) * c2w[16 * view + 4 * k + 3]; }
      EXPECT_NEAR(sum, out[16 * view + 4 * row + 3], 1e-6);
    }
  }
  expect_near({m.end() - 4, m.end()}, {0, 0, 0, 1}, 0);
}

TEST(CamerasTest, WorldToNormHoldsTheWholeNormalisation) {
  auto const c2w = views(4);
  auto const normalisation = normalise_over(c2w);
  auto matrix = world_to_norm(normalisation);
  EXPECT_EQ(world_to_norm_problem(matrix.data()), "");
  for (std::size_t i = 0; i < 4; ++i) matrix[i] = -matrix[i];
  EXPECT_EQ(world_to_norm_problem(matrix.data()), "it mirrors (its determinant is negative)");
  matrix = std::vector<float>(16, 3.0F);
  EXPECT_NE(world_to_norm_problem(matrix.data()).find("its last row is 3 3 3 3"), std::string::npos);
  matrix[12] = matrix[13] = matrix[14] = 0, matrix[15] = 1;
  EXPECT_EQ(world_to_norm_problem(matrix.data()), "it is no rotation times one scale");
  auto const back = from_world_to_norm(world_to_norm(normalisation).data());
  EXPECT_NEAR(back.scale, normalisation.scale, 1e-7);
  expect_near({back.rigid, back.rigid + 16}, {normalisation.rigid, normalisation.rigid + 16}, 1e-6);
}

TEST(CamerasTest, OppositeViewsHaveNoMeanDirection) {
  auto c2w = pose(0, 0, 0, 0, 1);
  auto const other = pose(3.14159265358979, 0, 0, 0, -1);
  c2w.insert(c2w.end(), other.begin(), other.end());
  EXPECT_TRUE(says(data_error_of([&] { normalise_over(c2w); }), {"mean forward", "opposite"}));
  EXPECT_TRUE(says(data_error_of([&] { normalise_over({}); }), {"0 numbers"}));
}

std::string problem(Pose const& c2w, std::vector<float> const& k = {50, 50, 32, 24}) { return camera_problem(c2w.data(), k.data(), 48, 64); }

TEST(CamerasTest, GoodCameraHasNoProblem) {
  EXPECT_EQ(problem(pose(0.5, 0.2, 1, 2, 3)), "");
  EXPECT_EQ(problem(pose(0.5, 0.2, 1, 2, 3), {50, 50, 64, 48}), "") << "the border belongs to the picture";
}

TEST(CamerasTest, EachBadPoseIsToldWithItsNumbers) {
  auto scaled = pose(0, 0, 1, 2, 3);
  scaled[5] = 1.5F;
  EXPECT_TRUE(says(problem(scaled), {"not orthonormal", "1.25", "det 1.5"}));
  auto mirrored = pose(0.3, 0, 0, 0, 0);
  for (std::size_t i : {1U, 5U, 9U}) { mirrored[i] *= -1; }
  EXPECT_TRUE(says(problem(mirrored), {"determinant -1", "+1", "mirrored"}));
  auto nan = pose(0, 0, 0, 0, 0);
  nan[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(says(problem(nan), {"(1,3)", "nan"}));
  auto row = pose(0, 0, 0, 0, 0);
  row[15] = 2;
  EXPECT_TRUE(says(problem(row), {"last row", "0 0 0 2"}));
}

TEST(CamerasTest, EachBadIntrinsicIsToldWithItsNumbers) {
  auto const good = pose(0, 0, 0, 0, 0);
  EXPECT_TRUE(says(problem(good, {0, 50, 32, 24}), {"fx is 0", "positive"}));
  EXPECT_TRUE(says(problem(good, {50, -3, 32, 24}), {"fy is -3"}));
  EXPECT_TRUE(says(problem(good, {50, 50, 65, 24}), {"cx is 65", "0 to 64"}));
  EXPECT_TRUE(says(problem(good, {50, 50, 32, -1}), {"cy is -1", "0 to 48"}));
  EXPECT_TRUE(says(problem(good, {50, std::numeric_limits<float>::infinity(), 32, 24}), {"fy is inf"}));
}

}  // namespace
}  // namespace duoflow::data::testing
