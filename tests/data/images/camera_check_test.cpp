#include "data/ingest/camera_check.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>
#include <functional>
#include <numbers>

#include "data/images/image_io.h"
#include "data/ingest/ingest_lvsm.h"
#include "lvsm_folder.h"
#include "python.h"

namespace duoflow::data::testing {
namespace {

constexpr std::int64_t kSize = 96;

// Looks at `aim` from a place around it; OpenCV axes, the world's up is +Z.
CheckView looking(std::array<double, 3> const& aim, double azimuth, double elevation) {
  std::array<double, 3> const forward{-std::cos(azimuth) * std::cos(elevation), -std::sin(azimuth) * std::cos(elevation), -std::sin(elevation)};
  std::array<double, 3> const right{-std::sin(azimuth), std::cos(azimuth), 0};
  std::array<double, 3> const down{forward[1] * right[2] - forward[2] * right[1], forward[2] * right[0] - forward[0] * right[2],
                                   forward[0] * right[1] - forward[1] * right[0]};
  CheckView view;
  for (std::size_t row = 0; row < 3; ++row) {
    view.c2w[4 * row] = static_cast<float>(right[row]);
    view.c2w[4 * row + 1] = static_cast<float>(down[row]);
    view.c2w[4 * row + 2] = static_cast<float>(forward[row]);
    view.c2w[4 * row + 3] = static_cast<float>(aim[row] - 3 * forward[row]);
  }
  view.c2w[15] = 1;
  view.fxfycxcy = {120, 120, kSize / 2, kSize / 2};
  view.height = view.width = kSize;
  return view;
}

// A ball beside the point the cameras look at: a lopsided scene, so that mirrored readings differ.
std::vector<CheckView> views_of_a_ball(std::array<double, 3> const& aim) {
  std::vector<CheckView> views;
  for (int k = 0; k < 8; ++k) {
    CheckView view = looking(aim, 2 * std::numbers::pi * k / 8 + 0.1, 0.2 + 0.08 * k);
    auto const [u, v, depth] = project(view.c2w, view.fxfycxcy, {aim[0] + 0.3, aim[1] + 0.1, aim[2] + 0.25});
    double const radius = 120 * 0.3 / depth;
    for (std::int64_t i = 0; i < kSize * kSize; ++i) {
      double const x = static_cast<double>(i % kSize) + 0.5 - u, y = static_cast<double>(i / kSize) + 0.5 - v;
      view.alpha.push_back(x * x + y * y < radius * radius ? 255 : 0);
    }
    views.push_back(view);
  }
  return views;
}

TEST(CameraCheckTest, TheCommonPointIsWhereTheAxesMeet) {
  std::array<double, 3> const aim{1, -2, 0.5};
  auto const common = common_to(views_of_a_ball(aim));
  for (std::size_t axis = 0; axis < 3; ++axis) { EXPECT_NEAR(common.centre[axis], aim[axis], 1e-4); }
  EXPECT_NEAR(common.reach, 3 * 48.0 / 120, 1e-4);  // distance times half the picture over the focal length
}

TEST(CameraCheckTest, OutlinesTellTheReadingThatThePosesWereWrittenIn) {
  auto const views = views_of_a_ball({1, -2, 0.5});
  for (PoseReading const written : kPoseReadings) {
    auto given = views;
    // Read back as written, the poses are the true ones: every reading undoes itself, or is undone in two steps.
    for (CheckView& view : given) {
      bool const inverted = written == PoseReading::c2w_opencv || written == PoseReading::c2w_opengl;
      bool const flipped = written == PoseReading::w2c_opengl || written == PoseReading::c2w_opengl;
      if (flipped) { view.c2w = read_as(view.c2w, PoseReading::w2c_opengl); }
      if (inverted) { view.c2w = read_as(view.c2w, PoseReading::c2w_opencv); }
    }
    for (PoseReading const reading : kPoseReadings) {
      double const score = outline_agreement(given, reading);
      EXPECT_TRUE(reading == written ? score > 0.9 : score < 0.5) << to_string(written) << " read as " << to_string(reading) << ": " << score;
    }
  }
}

TEST(CameraCheckTest, WithoutOutlinesThereIsNoNumber) {
  auto views = views_of_a_ball({0, 0, 0});
  for (CheckView& view : views) { view.alpha.assign(view.alpha.size(), 255); }
  EXPECT_EQ(outline_agreement(views, PoseReading::w2c_opencv), -1);
  views[0].alpha.clear();
  EXPECT_EQ(outline_agreement(views, PoseReading::w2c_opencv), -1);
}

TEST(CameraSheetTest, RealScenesAgreeAndTheSheetIsDrawn) {
  if (shared_data().empty()) { GTEST_SKIP() << "no shared data beside the project"; }
  TemporaryFolder const folder;
  IngestOptions options;
  options.scenes = {shared_data() + "/lvsm_scenes/test"};
  options.remaps = {{"/data/relit/lvsm_scenes", shared_data() + "/lvsm_scenes"}};
  options.dry_run = true;
  options.camera_sheet = folder / "sheet.png";
  int judged = 0;
  options.say = [&](std::string const& line) {
    auto const at = line.find("outlines agree to ");
    if (at == std::string::npos) { return; }
    ++judged;
    EXPECT_GT(std::stod(line.substr(at + 18)), 0.9) << line;
  };
  EXPECT_TRUE(ingest_lvsm(options).warnings.empty());
  EXPECT_EQ(judged, 2);
  auto const sheet = read_image(options.camera_sheet);
  EXPECT_EQ(sheet.height, 2 * 192);
  EXPECT_EQ(sheet.width, 6 * 192);
}

// What a dry run says of a real scene whose frames are changed.
IngestReport report_of_a_teapot(std::function<void(nlohmann::json&)> const& change_frame) {
  TemporaryFolder const folder;
  std::filesystem::create_directories(folder / "metadata");
  auto const root = shared_data() + "/lvsm_scenes/train";
  for (char const* part : {"images", "envmaps"}) { std::filesystem::create_directory_symlink(root + "/" + part, folder / part); }
  auto metadata = nlohmann::json::parse(file_bytes(root + "/metadata/teapot_env_0.json"));
  for (auto& frame : metadata["frames"]) { change_frame(frame); }
  put_bytes(folder / "metadata/teapot_env_0.json", metadata.dump());
  IngestOptions options;
  options.scenes = {folder.path()};
  options.remaps = {{"/data/relit/lvsm_scenes/train", folder.path()}};
  options.dry_run = true;
  return ingest_lvsm(options);
}

TEST(CameraSheetTest, PosesOfAnotherConventionAreWarnedOf) {
  if (shared_data().empty()) { GTEST_SKIP() << "no shared data beside the project"; }
  auto const report = report_of_a_teapot([](nlohmann::json& frame) {  // OpenGL's camera axes: y and z turned round
    for (auto const row : {1, 2}) {
      for (auto& number : frame["w2c"][row]) { number = -number.get<double>(); }
    }
  });
  EXPECT_TRUE(report.problems.empty());
  ASSERT_EQ(report.warnings.size(), 1U);
  EXPECT_TRUE(says(to_line(report.warnings[0]), {"scene teapot_env_0", "world to camera, OpenGL or Blender axes", "convert the poses"}));
}

TEST(CameraSheetTest, IntrinsicsOfAnotherPictureSizeAreWarnedOf) {
  if (shared_data().empty()) { GTEST_SKIP() << "no shared data beside the project"; }
  auto const report = report_of_a_teapot([](nlohmann::json& frame) {
    for (auto& number : frame["fxfycxcy"]) { number = number.get<double>() / 2; }
  });
  ASSERT_EQ(report.warnings.size(), 1U);
  EXPECT_TRUE(says(to_line(report.warnings[0]), {"scene teapot_env_0", "pictures of another size than fxfycxcy is for", "correct the metadata"}));
}

}  // namespace
}  // namespace duoflow::data::testing
