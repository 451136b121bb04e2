// Captured maps and path-traced scenes from another renderer: do our axes, rotation and decoding agree with them?

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <numbers>

#include <nlohmann/json.hpp>

#include "../sample_folders.h"
#include "data/images/environment_map.h"
#include "python.h"

namespace duoflow::data::testing {
namespace {

using nlohmann::json;

class SharedMapsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (shared_data().empty()) { GTEST_SKIP() << "no shared data beside the project"; }
  }
};

json read_json(std::string const& path) { return json::parse(file_bytes(path)); }

std::array<float, 9> yaw(double angle) {  // counter-clockwise about +Z
  auto const c = static_cast<float>(std::cos(angle)), s = static_cast<float>(std::sin(angle));
  return {c, -s, 0, s, c, 0, 0, 0, 1};
}

// Sum of differences over the sum of b, both clipped at `most`.
double relative_difference(ImageF const& a, ImageF const& b, float most) {
  double difference = 0, sum = 0;
  for (std::size_t i = 0; i < a.pixels.size(); ++i) {
    difference += std::abs(std::min(a.pixels[i], most) - std::min(b.pixels[i], most));
    sum += std::min(b.pixels[i], most);
  }
  return difference / sum;
}

TEST_F(SharedMapsTest, EveryMapIsReadCleanAndHasItsPublishedStrength) {
  int checked = 0;
  for (auto const& entry : std::filesystem::recursive_directory_iterator(shared_data() + "/lvsm_scenes/source")) {
    if (entry.path().filename() != "env.json") { continue; }
    auto const env = read_json(entry.path().string());
    if (checked++ % 5 != 0) { continue; }  // each map lights several scenes
    auto const map = read_exr(shared_data() + "/envmaps/" + env["env_map"].get<std::string>());
    EXPECT_EQ(map.height, 256);
    EXPECT_EQ(map.width, 512);
    EXPECT_GE(*std::min_element(map.pixels.begin(), map.pixels.end()), 0);
    double const strength = env["strength"].get<double>();
    EXPECT_NEAR(0.65 / mean_luminance(map) / strength, 1, 2e-3) << env["env_map"];
  }
  EXPECT_GT(checked, 50);
}

// c2w of one frame: Blender's axes to OpenCV's.
std::array<float, 16> opencv_pose(json const& camera) {
  std::array<float, 16> out{};
  for (std::size_t i = 0; i < 16; ++i) {
    double const sign = i < 12 && (i % 4 == 1 || i % 4 == 2) ? -1 : 1;
    out[i] = static_cast<float>(sign * camera["c2w"][i / 4][i % 4].get<double>());
  }
  return out;
}

struct Scene {
  std::string object, light, split;
};

// Of one frame's map against its source: as it is, and turned or mirrored wrongly.
TEST_F(SharedMapsTest, PerFrameMapsReturnToTheirSource) {
  auto const scenes = shared_data() + "/lvsm_scenes/";
  double worst = 0, sum = 0, least_wrong = 1e9;
  int count = 0;
  for (Scene const& scene : {Scene{"bunny", "env_1", "train"}, Scene{"teapot", "env_0_1", "train"}, Scene{"gyroid", "env_5", "test"}, Scene{"dice", "env_2", "train"}}) {
    auto const source = scenes + "source/" + scene.object + "/" + scene.split + "/";
    auto const cameras = read_json(source + "cameras.json");
    auto const env = read_json(source + scene.light + "/env.json");
    // L(d) = E at azimuth atan2(d) + a: the map turned by a
    auto const truth = rotate_map(read_exr(shared_data() + "/envmaps/" + env["env_map"].get<std::string>()), yaw(env["rotation_euler"][2].get<double>()));
    auto const expected = resize_map(truth, 16, 32);
    for (int const frame : {0, 7}) {
      char name[16];
      std::snprintf(name, sizeof name, "%05d", frame);
      auto const base = scenes + scene.split + "/envmaps/" + scene.object + "_" + scene.light + "/" + name;
      auto const linear = recover_linear(read_image(base + "_ldr.png"), read_image(base + "_hdr.png"));
      auto const pose = opencv_pose(cameras[static_cast<std::size_t>(frame)]);
      auto const found = resize_map(camera_map_to_world(linear, pose.data(), 64, 128), 16, 32);
      double const error = relative_difference(found, expected, 10);
      worst = std::max(worst, error);
      sum += error;
      ++count;
      EXPECT_NEAR(mean_luminance(found) / mean_luminance(expected), 1, 0.05) << scene.object << " " << scene.light << " " << frame;
      for (double const wrong : {0.2, -0.2, std::numbers::pi / 2, std::numbers::pi}) {
        least_wrong = std::min(least_wrong, relative_difference(rotate_map(found, yaw(wrong)), expected, 10));
      }
    }
  }
  std::cout << "relative radiance error at 16 x 32: mean " << sum / count << ", worst " << worst << "; least under a wrong yaw (0.2 rad or more) "
            << least_wrong << "\n";
  EXPECT_LT(worst, 0.06);
  EXPECT_GT(least_wrong, 2 * worst);
}

}  // namespace
}  // namespace duoflow::data::testing
