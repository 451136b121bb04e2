#include "data/ingest/camera_sheet.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>

#include <fmt/format.h>

#include "data/ingest/camera_check.h"
#include "data/ingest/lvsm_shard.h"
#include "data/images/picture.h"

namespace duoflow::data {
namespace {

constexpr std::size_t kMostRows = 4, kColumns = 6, kMostViews = 16;
constexpr std::int64_t kCell = 192;  // pixels
constexpr double kClearlyBetter = 0.2;
constexpr double kPoor = 0.5;  // pictures with their own cameras have 0.9 and more

using Colour = std::array<std::uint8_t, 3>;
using Point = std::array<double, 3>;

struct Shown {
  CheckView view;  // of the square cell
  Image8 picture;
  std::size_t frame = 0;
};

std::vector<std::size_t> spread(std::size_t count, std::size_t most) {
  std::size_t const taken = std::min(count, most);
  std::vector<std::size_t> out;
  for (std::size_t i = 0; i < taken; ++i) { out.push_back(i * count / taken); }
  return out;
}

std::vector<Shown> load(LvsmScene const& scene, SourceFiles const& files, FileTable const& table) {
  std::vector<Shown> out;
  for (std::size_t const i : spread(scene.frames.size(), kMostViews)) {
    LvsmFrame const& frame = scene.frames[i];
    Image8 const stored = decode_picture(read_checked(files, table, frame.image), frame.image, ColourRule::assume_srgb);
    SquareFit const fit(frame.size, kCell);
    Image8 const square = crop(resize_lanczos(stored, fit.height, fit.width), fit.top, fit.left, kCell, kCell);
    Shown shown{{frame.c2w, fit.intrinsics(frame), kCell, kCell, {}}, over_white(square), i};
    for (std::size_t p = 3; square.channels == 4 && p < square.pixels.size(); p += 4) { shown.view.alpha.push_back(square.pixels[p]); }
    out.push_back(std::move(shown));
  }
  return out;
}

// A straight line in the world, as dots of 2 x 2 pixels.
void draw_line(Shown& shown, Point const& from, Point const& to, Colour const& colour) {
  constexpr int kDots = 300;
  for (int k = 0; k <= kDots; ++k) {
    double const share = static_cast<double>(k) / kDots;
    Point point{};
    for (std::size_t axis = 0; axis < 3; ++axis) { point[axis] = from[axis] + share * (to[axis] - from[axis]); }
    auto const [u, v, depth] = project(shown.view.c2w, shown.view.fxfycxcy, point);
    if (depth <= 0 || !(std::abs(u) < 1e6 && std::abs(v) < 1e6)) { continue; }
    for (int dot = 0; dot < 4; ++dot) {
      auto const x = static_cast<std::int64_t>(std::floor(u - 0.5)) + dot % 2, y = static_cast<std::int64_t>(std::floor(v - 0.5)) + dot / 2;
      if (x >= 0 && y >= 0 && x < kCell && y < kCell) { std::copy(colour.begin(), colour.end(), shown.picture.pixels.begin() + 3 * (y * kCell + x)); }
    }
  }
}

void draw_marks(Shown& shown, Common const& common) {
  auto const at = [&](double x, double y, double z) {
    return Point{common.centre[0] + common.reach * x, common.centre[1] + common.reach * y, common.centre[2] + common.reach * z};
  };
  constexpr double kCube = 0.45, kAxis = 0.7;  // of what every camera sees
  for (int axis = 0; axis < 3; ++axis) {
    for (int corner = 0; corner < 4; ++corner) {
      std::array<double, 3> from{}, to{};
      from[static_cast<std::size_t>(axis)] = -kCube;
      to[static_cast<std::size_t>(axis)] = kCube;
      for (int other = 0; other < 2; ++other) {
        auto const index = static_cast<std::size_t>((axis + 1 + other) % 3);
        from[index] = to[index] = (corner >> other & 1) != 0 ? kCube : -kCube;
      }
      draw_line(shown, at(from[0], from[1], from[2]), at(to[0], to[1], to[2]), {230, 170, 0});
    }
  }
  draw_line(shown, at(0, 0, 0), at(kAxis, 0, 0), {230, 0, 0});
  draw_line(shown, at(0, 0, 0), at(0, kAxis, 0), {0, 170, 0});
  draw_line(shown, at(0, 0, 0), at(0, 0, kAxis), {0, 60, 255});
  auto const depth = project(shown.view.c2w, shown.view.fxfycxcy, common.centre)[2];
  draw_text(shown.picture, 0, 0, fmt::format("frame {}{}", shown.frame, depth <= 0 ? " behind" : ""));
}

// Says how well the outlines agree; what seems wrong, "" when nothing does.
std::string judge(LvsmScene const& scene, std::vector<CheckView> const& views, bool wanted, std::function<void(std::string const&)> const& say) {
  std::array<double, kPoseReadings.size()> scores{};
  for (std::size_t i = 0; i < scores.size(); ++i) { scores[i] = outline_agreement(views, kPoseReadings[i]); }
  if (scores[0] < 0) {
    if (wanted) { say(fmt::format("cameras of {}: nothing to judge them by (alpha with outlines, and three views, are needed)", scene.name)); }
    return "";
  }
  say(fmt::format("cameras of {}: outlines agree to {:.2f} (1 is best; read as OpenGL {:.2f}, inverted {:.2f}, both {:.2f})", scene.name, scores[0], scores[1],
                  scores[2], scores[3]));
  auto const best = static_cast<std::size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  bool const other = scores[best] > scores[0] + kClearlyBetter;
  if (!other && scores[0] >= kPoor) { return ""; }
  if (!other) {
    return fmt::format("outlines agree with its cameras to {:.2f} alone, and no better however w2c is read (1 is best): pictures of another size than fxfycxcy is "
                       "for, or cameras of other pictures; correct the metadata",
                       scores[0]);
  }
  return fmt::format("outlines agree with its cameras to {:.2f}, but to {:.2f} if w2c were {} (it must be {}), convert the poses", scores[0], scores[best],
                     to_string(kPoseReadings[best]), to_string(PoseReading::w2c_opencv));
}

void paste(Image8 const& cell, Image8& sheet, std::int64_t top, std::int64_t left) {
  for (std::int64_t y = 0; y < cell.height; ++y) {
    std::copy_n(cell.pixels.begin() + 3 * y * cell.width, 3 * cell.width, sheet.pixels.begin() + 3 * ((top + y) * sheet.width + left));
  }
}

}  // namespace

std::vector<IngestProblem> check_poses(std::string const& path, std::span<LvsmScene const> scenes, SourceFiles const& files, FileTable const& table,
                                       std::function<void(std::string const&)> const& say) {
  std::vector<LvsmScene const*> objects;  // the first light of each
  for (LvsmScene const& scene : scenes) {
    if (objects.empty() || objects.back()->object != scene.object) { objects.push_back(&scene); }
  }
  auto const chosen = spread(objects.size(), path.empty() ? 1 : kMostRows);
  Image8 sheet{static_cast<std::int64_t>(chosen.size()) * kCell, static_cast<std::int64_t>(kColumns) * kCell, 3, {}};
  sheet.pixels.assign(static_cast<std::size_t>(3 * sheet.height * sheet.width), 255);
  std::vector<IngestProblem> wrong;
  for (std::size_t row = 0; row < chosen.size(); ++row) {
    LvsmScene const& scene = *objects[chosen[row]];
    auto views = load(scene, files, table);
    std::vector<CheckView> cameras;
    for (Shown const& shown : views) { cameras.push_back(shown.view); }
    if (std::string problem = judge(scene, cameras, !path.empty(), say); !problem.empty()) { wrong.push_back({scene.name, -1, std::move(problem)}); }
    if (path.empty()) { continue; }
    Common const common = common_to(cameras);
    auto const columns = spread(views.size(), kColumns);
    for (std::size_t column = 0; column < columns.size(); ++column) {
      draw_marks(views[columns[column]], common);
      paste(views[columns[column]].picture, sheet, static_cast<std::int64_t>(row) * kCell, static_cast<std::int64_t>(column) * kCell);
    }
    draw_text(sheet, static_cast<std::int64_t>(row + 1) * kCell - 8, 0, scene.name);
  }
  if (path.empty()) { return wrong; }
  write_png(path, sheet);
  say(fmt::format("{}: {} objects with the world's axes (X red, Y green, Z blue) and a cube around the point the cameras look at; both must stay on the object",
                  path, chosen.size()));
  return wrong;
}

}  // namespace duoflow::data
