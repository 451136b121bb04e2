#include "data/synth/scene.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numbers>
#include <set>

#include "data/cameras.h"

namespace duoflow::data {
namespace {

constexpr std::int64_t kKinds = 16;

TEST(SceneTest, EveryObjectIsClosedCentredAndOfLongestSide) {
  for (std::int64_t o = 0; o < kKinds; ++o) {
    Object const object = make_object(2, o);
    std::vector<std::array<std::uint32_t, 2>> edges, reversed;
    for (auto const& t : object.mesh.triangles) {
      for (std::size_t i = 0; i < 3; ++i) {
        edges.push_back({t[i], t[(i + 1) % 3]});
        reversed.push_back({t[(i + 1) % 3], t[i]});
      }
    }
    std::sort(edges.begin(), edges.end());  // each directed edge once, and its reverse once
    std::sort(reversed.begin(), reversed.end());
    ASSERT_TRUE(edges == reversed && std::adjacent_find(edges.begin(), edges.end()) == edges.end()) << object.name;
    Vec3 low{9, 9, 9}, high{-9, -9, -9};
    for (Vec3 const& p : object.mesh.points) {
      low = {std::min(low.x, p.x), std::min(low.y, p.y), std::min(low.z, p.z)};
      high = {std::max(high.x, p.x), std::max(high.y, p.y), std::max(high.z, p.z)};
    }
    Vec3 const size = high - low, centre = low + high;
    EXPECT_NEAR(std::max({size.x, size.y, size.z}), 1.4F, 1e-4F) << object.name;
    EXPECT_LT(length(centre), 1e-4F) << object.name;
  }
}

// Demo weights were trained on these: whoever changes them trains the weights anew.
TEST(SceneTest, TheDemosObjectsStayWhatTheyWere) {
  Object const first = make_object(0, 0), second = make_object(0, 1);
  EXPECT_EQ(first.name, "dice");
  EXPECT_EQ(second.name, "pebble");
  EXPECT_EQ(first.mesh.triangles.size(), 66708U);
  EXPECT_EQ(second.mesh.triangles.size(), 59432U);
}

TEST(SceneTest, NormalsPointOutwards) {
  for (std::int64_t o = 0; o < kKinds; ++o) {
    Object const object = make_object(0, o);
    std::size_t agreeing = 0;
    for (auto const& t : object.mesh.triangles) {
      Vec3 const& a = object.mesh.points[t[0]];
      Vec3 const face = cross(object.mesh.points[t[1]] - a, object.mesh.points[t[2]] - a);
      agreeing += dot(face, object.mesh.normals[t[0]]) > 0 ? 1U : 0U;
    }
    EXPECT_GT(agreeing, object.mesh.triangles.size() * 99 / 100) << object.name;
  }
}

TEST(SceneTest, KindsDoNotRepeatBeforeAllWereUsed) {
  std::set<std::string> names;
  for (std::int64_t o = 0; o < kKinds + 1; ++o) {
    std::string const name = make_object(4, o).name;
    EXPECT_EQ(name.find("_env_"), std::string::npos);
    EXPECT_EQ(name.find("_area_"), std::string::npos);
    EXPECT_EQ(name.find("_1") != std::string::npos, o == kKinds) << name;
    names.insert(name);
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kKinds) + 1);
}

TEST(SceneTest, CamerasAreRigidAndSeeTheWholeObject) {
  for (std::int64_t o : {0, 4}) {
    Object const object = make_object(1, o);
    for (std::int64_t v = 0; v < 20; ++v) {
      Camera const camera = make_camera(1, o, v, 64, object.mesh);
      EXPECT_EQ(camera_problem(camera.c2w, camera.fxfycxcy, 64, 64), "");
      float const* const m = camera.c2w;
      for (Vec3 const& p : object.mesh.points) {
        Vec3 const q = p - Vec3{m[3], m[7], m[11]};
        float const depth = m[2] * q.x + m[6] * q.y + m[10] * q.z;
        float const x = camera.fxfycxcy[0] * (m[0] * q.x + m[4] * q.y + m[8] * q.z) / depth + 32;
        float const y = camera.fxfycxcy[1] * (m[1] * q.x + m[5] * q.y + m[9] * q.z) / depth + 32;
        ASSERT_TRUE(depth > 0 && x > 0 && x < 64 && y > 0 && y < 64) << object.name << " view " << v << ": " << x << ", " << y;
      }
    }
  }
}

TEST(SceneTest, EveryFourthOfSixteenViewsLooksFromAnotherQuarter) {
  Mesh const mesh;
  for (std::int64_t first = 0; first < 4; ++first) {
    std::vector<float> azimuths;
    for (std::int64_t v = first; v < 16; v += 4) {
      Camera const camera = make_camera(6, 0, v, 64, mesh);
      azimuths.push_back(std::atan2(camera.c2w[7], camera.c2w[3]) * 180 / std::numbers::pi_v<float>);
    }
    std::sort(azimuths.begin(), azimuths.end());
    for (std::size_t i = 0; i + 1 < azimuths.size(); ++i) {
      EXPECT_NEAR(azimuths[i + 1] - azimuths[i], 90, 10);
    }
  }
}

}  // namespace
}  // namespace duoflow::data
