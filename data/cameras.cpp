#include "data/cameras.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <iterator>

#include <fmt/format.h>

#include "data/error.h"

namespace duoflow::data {
namespace {

constexpr double kSceneScaleFactor = 1.35;  // LVSM's preprocess_poses
// Metadata written with four decimals still passes; a scaled or sheared pose does not.
constexpr double kOrthonormalTolerance = 1e-3;
// Below this the mean of unit vectors is rounding noise and has no direction.
constexpr double kShortestMean = 1e-5;

using Vector = std::array<double, 3>;

double dot(Vector const& a, Vector const& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
Vector cross(Vector const& a, Vector const& b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
Vector unit(Vector const& v, char const* what) {
  double const length = std::sqrt(dot(v, v));
  if (!(length > kShortestMean)) {
    throw DataError(fmt::format("{} of the views has length {:.3g} (it must exceed {:.0e}: the views look in opposite directions or are "
                                "not cameras), choose views that share a side",
                                what, length, kShortestMean));
  }
  return {v[0] / length, v[1] / length, v[2] / length};
}

// Mean over the views of one column of their matrices.
Vector mean_column(std::vector<float> const& c2w, std::size_t column) {
  std::size_t const views = c2w.size() / 16;
  Vector mean{};
  for (std::size_t view = 0; view < views; ++view) {
    for (std::size_t row = 0; row < 3; ++row) { mean[row] += c2w[16 * view + 4 * row + column]; }
  }
  for (double& x : mean) { x /= static_cast<double>(views); }
  return mean;
}

void check_views(std::vector<float> const& c2w) {
  if (c2w.empty() || c2w.size() % 16 != 0) {
    throw DataError(fmt::format("camera poses hold {} numbers (each view needs 16, at least one view), pass whole 4x4 matrices", c2w.size()));
  }
}

// rigid * c2w, not yet scaled.
std::vector<double> moved(float const* rigid, std::vector<float> const& c2w) {
  std::vector<double> out(c2w.size());
  for (std::size_t view = 0; view < c2w.size() / 16; ++view) {
    for (std::size_t row = 0; row < 4; ++row) {
      for (std::size_t column = 0; column < 4; ++column) {
        double sum = 0;
        for (std::size_t k = 0; k < 4; ++k) {
          sum += static_cast<double>(rigid[4 * row + k]) * static_cast<double>(c2w[16 * view + 4 * k + column]);
        }
        out[16 * view + 4 * row + column] = sum;
      }
    }
  }
  return out;
}

}  // namespace

Normalisation normalise_over(std::vector<float> const& c2w) {
  check_views(c2w);
  Vector const centre = mean_column(c2w, 3);
  Vector const forward = unit(mean_column(c2w, 2), "the mean forward direction");
  Vector const right = unit(cross(mean_column(c2w, 1), forward), "the cross product of mean down and mean forward direction");
  Vector const down = unit(cross(forward, right), "the mean down direction");

  Normalisation out{};
  std::array<Vector, 3> const axes{right, down, forward};
  for (std::size_t row = 0; row < 3; ++row) {  // inverse of [right down forward | centre]
    for (std::size_t column = 0; column < 3; ++column) { out.rigid[4 * row + column] = static_cast<float>(axes[row][column]); }
    out.rigid[4 * row + 3] = static_cast<float>(-dot(axes[row], centre));
  }
  out.rigid[15] = 1;

  double farthest = 0;
  std::vector<double> const poses = moved(out.rigid, c2w);
  for (std::size_t view = 0; view < c2w.size() / 16; ++view) {
    for (std::size_t row = 0; row < 3; ++row) { farthest = std::max(farthest, std::abs(poses[16 * view + 4 * row + 3])); }
  }
  // All cameras in one place (a single view): there is no length to measure by, and the reference divides by zero.
  Vector const first{c2w[3], c2w[7], c2w[11]};
  bool const one_place = farthest <= 1e-6 * (1 + std::sqrt(dot(first, first)));
  out.scale = one_place ? 1.0F : static_cast<float>(1 / (kSceneScaleFactor * farthest));
  return out;
}

std::vector<std::int64_t> views_of_frame(std::vector<std::int64_t> const& inputs,
                                         std::vector<std::int64_t> const& targets, bool targets_too) {
  auto views = inputs;
  if (targets_too) {
    std::copy_if(targets.begin(), targets.end(), std::back_inserter(views),
                 [&](std::int64_t view) { return std::find(inputs.begin(), inputs.end(), view) == inputs.end(); });
  }
  return views;
}

std::vector<float> apply(Normalisation const& normalisation, std::vector<float> const& c2w) {
  check_views(c2w);
  std::vector<double> poses = moved(normalisation.rigid, c2w);
  std::vector<float> out(poses.size());
  for (std::size_t i = 0; i < poses.size(); ++i) {
    bool const translation = i % 4 == 3 && i % 16 != 15;
    out[i] = static_cast<float>(translation ? poses[i] * static_cast<double>(normalisation.scale) : poses[i]);
  }
  return out;
}

std::vector<float> world_to_norm(Normalisation const& normalisation) {
  std::vector<float> out(normalisation.rigid, normalisation.rigid + 16);
  for (std::size_t i = 0; i < 12; ++i) { out[i] *= normalisation.scale; }
  return out;
}

std::string world_to_norm_problem(float const* m) {
  if (!std::all_of(m, m + 16, [](float x) { return std::isfinite(x); })) return "a number is not finite";
  if (m[12] != 0 || m[13] != 0 || m[14] != 0 || m[15] != 1) return fmt::format("its last row is {} {} {} {} (0 0 0 1 needed)", m[12], m[13], m[14], m[15]);
  auto const dot = [&](int a, int b) {
    double sum = 0;
    for (int column = 0; column < 3; ++column) sum += static_cast<double>(m[4 * a + column]) * m[4 * b + column];
    return sum;
  };
  double const square = (dot(0, 0) + dot(1, 1) + dot(2, 2)) / 3;
  double off = 0;
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b <= a; ++b) off = std::max(off, std::abs(dot(a, b) - (a == b ? square : 0)));
  if (!(square > 0) || off > 1e-3 * square) return "it is no rotation times one scale";
  double const determinant = m[0] * (static_cast<double>(m[5]) * m[10] - static_cast<double>(m[6]) * m[9]) -
                             m[1] * (static_cast<double>(m[4]) * m[10] - static_cast<double>(m[6]) * m[8]) +
                             m[2] * (static_cast<double>(m[4]) * m[9] - static_cast<double>(m[5]) * m[8]);
  return determinant > 0 ? "" : "it mirrors (its determinant is negative)";
}

Normalisation from_world_to_norm(float const* world_to_norm) {
  double squares = 0;  // of a scaled rotation: 3 s^2
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t column = 0; column < 3; ++column) {
      double const x = world_to_norm[4 * row + column];
      squares += x * x;
    }
  }
  double const scale = std::sqrt(squares / 3);
  if (!(scale > 0) || !std::isfinite(scale)) {
    throw DataError(fmt::format("world_to_norm has scale {} (a finite positive number is needed), write the shard again", scale));
  }
  Normalisation out{};
  for (std::size_t i = 0; i < 12; ++i) { out.rigid[i] = static_cast<float>(world_to_norm[i] / scale); }
  out.rigid[15] = 1;
  out.scale = static_cast<float>(scale);
  return out;
}

namespace {

std::string pose_problem(float const* c2w) {
  for (int i = 0; i < 16; ++i) {
    if (!std::isfinite(c2w[i])) { return fmt::format("pose entry ({},{}) is {} (finite numbers are needed)", i / 4, i % 4, c2w[i]); }
  }
  if (c2w[12] != 0 || c2w[13] != 0 || c2w[14] != 0 || c2w[15] != 1) {
    return fmt::format("the pose's last row is {} {} {} {} (0 0 0 1 is needed)", c2w[12], c2w[13], c2w[14], c2w[15]);
  }
  std::array<Vector, 3> columns;
  for (std::size_t column = 0; column < 3; ++column) { columns[column] = {c2w[column], c2w[4 + column], c2w[8 + column]}; }
  double worst = 0;
  for (std::size_t a = 0; a < 3; ++a) {
    for (std::size_t b = 0; b < 3; ++b) { worst = std::max(worst, std::abs(dot(columns[a], columns[b]) - (a == b ? 1.0 : 0.0))); }
  }
  double const determinant = dot(columns[0], cross(columns[1], columns[2]));
  if (worst > kOrthonormalTolerance) {
    return fmt::format("the rotation is not orthonormal: an entry of R^T R is {:.4g} away from the identity's (at most {:.0e} is allowed; det {:.4g})",
                       worst, kOrthonormalTolerance, determinant);
  }
  if (determinant < 0) { return fmt::format("the rotation has determinant {:.4g} (+1 is needed: one axis is mirrored)", determinant); }
  return "";
}

}  // namespace

std::string camera_problem(float const* c2w, float const* fxfycxcy, long height, long width) {
  if (std::string problem = pose_problem(c2w); !problem.empty()) { return problem; }
  static constexpr std::array<char const*, 4> names{"fx", "fy", "cx", "cy"};
  for (std::size_t i = 0; i < 4; ++i) {
    if (!std::isfinite(fxfycxcy[i])) { return fmt::format("{} is {} (a finite number of pixels is needed)", names[i], fxfycxcy[i]); }
  }
  for (std::size_t i = 0; i < 2; ++i) {
    if (fxfycxcy[i] <= 0) { return fmt::format("{} is {} pixels (it must be positive)", names[i], fxfycxcy[i]); }
    long const extent = i == 0 ? width : height;
    float const centre = fxfycxcy[2 + i];
    if (centre < 0 || centre > static_cast<float>(extent)) {
      return fmt::format("{} is {} pixels (it must lie in the picture, 0 to {})", names[2 + i], centre, extent);
    }
  }
  return "";
}

}  // namespace duoflow::data
