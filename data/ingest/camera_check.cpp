#include "data/ingest/camera_check.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace duoflow::data {
namespace {

constexpr int kCells = 56;     // the shape is carved from a cube of this many cells a side
constexpr std::int64_t kMaskSide = 64;  // outlines are judged at about this resolution
constexpr std::size_t kFewestViews = 3;
constexpr double kOpaque = 127.5;
constexpr double kMostCovered = 0.95;  // outlines that fill the pictures say nothing

using Vector = std::array<double, 3>;
using Matrix = std::array<float, 16>;

// Covered pixels of a smaller picture, and the same grown by one pixel: cells are points, and thin parts must survive.
struct Mask {
  std::int64_t height = 0, width = 0;
  double scale = 1;  // mask pixels per picture pixel
  std::vector<std::uint8_t> covered, grown;
};

Mask mask_of(CheckView const& view) {
  Mask mask;
  mask.scale = std::min(1.0, static_cast<double>(kMaskSide) / static_cast<double>(std::min(view.height, view.width)));
  mask.height = std::max<std::int64_t>(1, std::llround(mask.scale * static_cast<double>(view.height)));
  mask.width = std::max<std::int64_t>(1, std::llround(mask.scale * static_cast<double>(view.width)));
  auto const pixels = static_cast<std::size_t>(mask.height * mask.width);
  mask.covered.resize(pixels);
  mask.grown.resize(pixels);
  for (std::int64_t y = 0; y < mask.height; ++y) {
    for (std::int64_t x = 0; x < mask.width; ++x) {
      auto const row = std::min(view.height - 1, static_cast<std::int64_t>((static_cast<double>(y) + 0.5) / mask.scale));
      auto const column = std::min(view.width - 1, static_cast<std::int64_t>((static_cast<double>(x) + 0.5) / mask.scale));
      mask.covered[static_cast<std::size_t>(y * mask.width + x)] = view.alpha[static_cast<std::size_t>(row * view.width + column)] > kOpaque ? 1 : 0;
    }
  }
  for (std::int64_t y = 0; y < mask.height; ++y) {
    for (std::int64_t x = 0; x < mask.width; ++x) {
      for (std::int64_t i = std::max<std::int64_t>(0, y - 1); i <= std::min(mask.height - 1, y + 1); ++i) {
        for (std::int64_t j = std::max<std::int64_t>(0, x - 1); j <= std::min(mask.width - 1, x + 1); ++j) {
          mask.grown[static_cast<std::size_t>(y * mask.width + x)] |= mask.covered[static_cast<std::size_t>(i * mask.width + j)];
        }
      }
    }
  }
  return mask;
}

// Cells whose centre falls on the grown outline in every view.
std::vector<Vector> carve(std::vector<CheckView> const& views, std::vector<Mask> const& masks, Common const& common) {
  std::vector<Vector> kept;
  for (int i = 0; i < kCells * kCells * kCells; ++i) {
    Vector cell{};
    for (std::size_t axis = 0, rest = static_cast<std::size_t>(i); axis < 3; ++axis, rest /= kCells) {
      cell[axis] = common.centre[axis] + common.reach * (2 * (static_cast<double>(rest % kCells) + 0.5) / kCells - 1);
    }
    bool const inside = std::all_of(views.begin(), views.end(), [&](CheckView const& view) {
      Mask const& mask = masks[static_cast<std::size_t>(&view - views.data())];
      auto const [u, v, depth] = project(view.c2w, view.fxfycxcy, cell);
      if (depth <= 0) { return false; }
      double const x = std::floor(u * mask.scale), y = std::floor(v * mask.scale);
      if (!(x >= 0 && y >= 0 && x < static_cast<double>(mask.width) && y < static_cast<double>(mask.height))) { return false; }
      return mask.grown[static_cast<std::size_t>(static_cast<std::int64_t>(y) * mask.width + static_cast<std::int64_t>(x))] != 0;
    });
    if (inside) { kept.push_back(cell); }
  }
  return kept;
}

// Share of a view's covered pixels on which a cell falls.
double covered_share(CheckView const& view, Mask const& mask, std::vector<Vector> const& cells, double cell_side) {
  std::vector<std::uint8_t> drawn(mask.covered.size());
  for (Vector const& cell : cells) {
    auto const [u, v, depth] = project(view.c2w, view.fxfycxcy, cell);
    double const half = 0.5 * cell_side * static_cast<double>(view.fxfycxcy[0]) / depth * mask.scale + 0.5;
    auto const first = [&](double at) { return std::max<std::int64_t>(0, std::llround(at * mask.scale - half)); };
    auto const last = [&](double at, std::int64_t size) { return std::min<std::int64_t>(size, std::llround(at * mask.scale + half)); };
    for (std::int64_t y = first(v); y < last(v, mask.height); ++y) {
      for (std::int64_t x = first(u); x < last(u, mask.width); ++x) { drawn[static_cast<std::size_t>(y * mask.width + x)] = 1; }
    }
  }
  double covered = 0, both = 0;
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    covered += mask.covered[i];
    both += mask.covered[i] & drawn[i];
  }
  return covered > 0 ? both / covered : 1.0;
}

Matrix inverse_of(Matrix const& m) {  // of a rigid motion
  Matrix out{};
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t column = 0; column < 3; ++column) {
      out[4 * row + column] = m[4 * column + row];
      out[4 * row + 3] -= m[4 * column + row] * m[4 * column + 3];
    }
  }
  out[15] = 1;
  return out;
}

}  // namespace

char const* to_string(PoseReading reading) {
  switch (reading) {
    case PoseReading::w2c_opencv: return "world to camera, OpenCV axes";
    case PoseReading::w2c_opengl: return "world to camera, OpenGL or Blender axes";
    case PoseReading::c2w_opencv: return "camera to world, OpenCV axes";
    case PoseReading::c2w_opengl: break;
  }
  return "camera to world, OpenGL or Blender axes";
}

Matrix read_as(Matrix const& c2w, PoseReading reading) {
  bool const inverted = reading == PoseReading::c2w_opencv || reading == PoseReading::c2w_opengl;
  Matrix out = inverted ? inverse_of(c2w) : c2w;
  if (reading == PoseReading::w2c_opengl || reading == PoseReading::c2w_opengl) {
    for (std::size_t row = 0; row < 3; ++row) {  // its y points up, its z backward
      out[4 * row + 1] = -out[4 * row + 1];
      out[4 * row + 2] = -out[4 * row + 2];
    }
  }
  return out;
}

Common common_to(std::vector<CheckView> const& views) {
  // Least squares: sum over the views of (I - d d^T) (p - o) = 0; a little weight towards the cameras keeps parallel axes solvable.
  std::array<double, 9> a{};
  Vector b{};
  for (CheckView const& view : views) {
    for (std::size_t row = 0; row < 3; ++row) {
      for (std::size_t column = 0; column < 3; ++column) {
        double const entry = (row == column ? 1.0 + 1e-6 : 0.0) - static_cast<double>(view.c2w[4 * row + 2]) * static_cast<double>(view.c2w[4 * column + 2]);
        a[3 * row + column] += entry;
        b[row] += entry * static_cast<double>(view.c2w[4 * column + 3]);
      }
    }
  }
  auto const minor = [&](std::size_t row, std::size_t column) {
    std::size_t const r1 = (row + 1) % 3, r2 = (row + 2) % 3, c1 = (column + 1) % 3, c2 = (column + 2) % 3;
    return a[3 * r1 + c1] * a[3 * r2 + c2] - a[3 * r1 + c2] * a[3 * r2 + c1];
  };
  double const determinant = a[0] * minor(0, 0) + a[1] * minor(0, 1) + a[2] * minor(0, 2);
  Common out;
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t column = 0; column < 3; ++column) { out.centre[row] += minor(column, row) * b[column] / determinant; }
  }
  double distance = 0, tangent = 0;
  for (CheckView const& view : views) {
    double squares = 0;
    for (std::size_t row = 0; row < 3; ++row) {
      double const step = out.centre[row] - static_cast<double>(view.c2w[4 * row + 3]);
      squares += step * step;
    }
    distance += std::sqrt(squares) / static_cast<double>(views.size());
    tangent += static_cast<double>(std::min(view.height, view.width)) / (2 * static_cast<double>(std::min(view.fxfycxcy[0], view.fxfycxcy[1]))) /
               static_cast<double>(views.size());
  }
  out.reach = distance * std::min(tangent, 1.0);
  return out;
}

Vector project(Matrix const& c2w, std::array<float, 4> const& k, Vector const& point) {
  Vector camera{};  // R^T (p - o)
  for (std::size_t i = 0; i < 9; ++i) {
    camera[i % 3] += static_cast<double>(c2w[4 * (i / 3) + i % 3]) * (point[i / 3] - static_cast<double>(c2w[4 * (i / 3) + 3]));
  }
  return {static_cast<double>(k[0]) * camera[0] / camera[2] + static_cast<double>(k[2]), static_cast<double>(k[1]) * camera[1] / camera[2] + static_cast<double>(k[3]),
          camera[2]};
}

double outline_agreement(std::vector<CheckView> const& given, PoseReading reading) {
  bool const masked = std::all_of(given.begin(), given.end(), [](CheckView const& view) { return !view.alpha.empty(); });
  if (!masked || given.size() < kFewestViews) { return -1; }
  std::vector<CheckView> views = given;
  std::vector<Mask> masks;
  for (CheckView& view : views) {
    view.c2w = read_as(view.c2w, reading);
    masks.push_back(mask_of(view));
  }
  double covered = 0, pixels = 0;
  for (Mask const& mask : masks) {
    covered += std::accumulate(mask.covered.begin(), mask.covered.end(), 0.0);
    pixels += static_cast<double>(mask.covered.size());
  }
  if (covered == 0 || covered > kMostCovered * pixels) { return -1; }
  Common const common = common_to(views);
  auto const cells = carve(views, masks, common);
  double sum = 0;
  for (std::size_t i = 0; i < views.size(); ++i) { sum += covered_share(views[i], masks[i], cells, 2 * common.reach / kCells); }
  return sum / static_cast<double>(views.size());
}

}  // namespace duoflow::data
