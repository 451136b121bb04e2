#include "data/synth/objects.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "data/error.h"

namespace duoflow::data {
namespace {

// Some points of an object with their surfaces.
std::vector<Surface> surfaces_of(Object const& object) {
  std::vector<Surface> surfaces;
  for (std::uint32_t t = 0; t < object.mesh.triangles.size(); t += 97) {
    surfaces.push_back(object.surface_at({object.mesh.points[object.mesh.triangles[t][0]], t, 0, 0}));
  }
  return surfaces;
}
bool same(Vec3 a, Vec3 b) { return a.x == b.x && a.y == b.y && a.z == b.z; }

SurfaceAt uniform_surface(Surface const& surface) {
  return [surface](SurfacePoint const&) { return surface; };
}

TEST(FinishTest, EveryFinishIsWhatItSays) {
  Vec3 const colour{0.7F, 0.3F, 0.2F};
  for (Surface const& base : {matte(colour), plastic(colour, 0.3F), metal(colour, 0.3F)}) {
    KeyedRandom const random(4);
    Surface const diffuse = refinished(uniform_surface(base), Finish::diffuse, random)({});
    EXPECT_TRUE(same(diffuse.diffuse, colour) && mean(diffuse.specular) == 0);
    Surface const glossy = refinished(uniform_surface(base), Finish::glossy, random)({});
    EXPECT_TRUE(same(glossy.diffuse, colour));
    EXPECT_EQ(glossy.specular.x, 0.04F);
    Surface const metallic = refinished(uniform_surface(base), Finish::metal, random)({});
    EXPECT_EQ(mean(metallic.diffuse), 0);
    EXPECT_GT(metallic.specular.x, metallic.specular.z);  // the colour's order stays
  }
}

TEST(FinishTest, PatternsVaryOverTheObjectAndAreAllDifferentKinds) {
  std::set<int> shares;
  for (std::uint64_t key = 0; key < 12; ++key) {
    SurfaceAt const textured = refinished(uniform_surface(matte({0.8F, 0.8F, 0.8F})), Finish::textured, KeyedRandom(key));
    KeyedRandom random(7);
    int changed = 0;
    constexpr int kPoints = 400;
    for (int i = 0; i < kPoints; ++i) {
      Surface const surface = textured({random.direction() * 0.5F, 0, 0, 0});
      ASSERT_TRUE(surface.diffuse.x >= 0 && surface.diffuse.x <= 1 && surface.diffuse.z >= 0 && surface.diffuse.z <= 1);
      changed += std::abs(surface.diffuse.x - 0.8F) + std::abs(surface.diffuse.y - 0.8F) > 0.02F ? 1 : 0;
    }
    EXPECT_GT(changed, kPoints / 20) << key;
    shares.insert(changed);
  }
  EXPECT_GE(shares.size(), 8U);
}

TEST(FinishTest, NamesAreThoseOfTheOption) {
  for (char const* name : {"diffuse", "glossy", "metal", "textured"}) {
    EXPECT_EQ(to_string(finish_named(name)), name);
  }
  EXPECT_THROW(finish_named("glass"), DataError);
}

TEST(ObjectsTest, ProceduralObjectsKeepTheirOwnSurfacesUnlessMaterialsAreNamed) {
  Object const plain = ObjectMaker({}, 3).make(1), own = make_object(3, 1);
  EXPECT_EQ(plain.name, own.name);
  auto const a = surfaces_of(plain), b = surfaces_of(own);
  for (std::size_t i = 0; i < a.size(); ++i) {
    ASSERT_TRUE(same(a[i].diffuse, b[i].diffuse) && a[i].alpha == b[i].alpha);
  }
  ObjectOptions metals;
  metals.materials = {Finish::metal};
  for (Surface const& surface : surfaces_of(ObjectMaker(metals, 3).make(1))) {
    ASSERT_EQ(mean(surface.diffuse), 0);
  }
}

TEST(ObjectsTest, TheChoiceAmongMaterialsIsSeededAndUsesAll) {
  ObjectOptions two;
  two.materials = {Finish::diffuse, Finish::metal};
  std::set<bool> metals;
  for (std::int64_t i = 0; i < 6; ++i) {
    bool const is_metal = mean(surfaces_of(ObjectMaker(two, 1).make(i)).front().diffuse) == 0;
    EXPECT_EQ(is_metal, mean(surfaces_of(ObjectMaker(two, 1).make(i)).front().diffuse) == 0);
    metals.insert(is_metal);
  }
  EXPECT_EQ(metals.size(), 2U);
}

Object ball(float radius, Surface const& surface) {
  Object object;
  object.name = "ball";
  object.mesh = mesh_of([=](Vec3 p) { return length(p) - radius; }, 1, 12);
  object.surface_at = uniform_surface(surface);
  return object;
}

TEST(ArrangementTest, MembersStandApartOnOneLevelAndKeepTheirSurfaces) {
  for (std::size_t count = 2; count <= 6; ++count) {
    std::vector<Object> balls;
    for (std::size_t i = 0; i < count; ++i) {
      balls.push_back(ball(0.4F + 0.05F * static_cast<float>(i), matte({0.1F * static_cast<float>(i + 1), 0, 0})));
    }
    Object const group = arranged(balls, Ground::none, "group", KeyedRandom(count));
    Vec3 const size = bounds_of(group.mesh).high - bounds_of(group.mesh).low;
    EXPECT_NEAR(std::max({size.x, size.y, size.z}), kLongestSide, 1e-4F);
    // Bounding boxes of the members, told apart by their surfaces.
    std::vector<Box> boxes(count, Box{{9, 9, 9}, {-9, -9, -9}});
    for (std::uint32_t t = 0; t < group.mesh.triangles.size(); ++t) {
      auto const member = static_cast<std::size_t>(
          std::lround(group.surface_at({group.mesh.points[group.mesh.triangles[t][0]], t, 0, 0}).diffuse.x * 10) - 1);
      ASSERT_LT(member, count);
      for (std::uint32_t const corner : group.mesh.triangles[t]) {
        Vec3 const p = group.mesh.points[corner];
        Box& box = boxes[member];
        box.low = {std::min(box.low.x, p.x), std::min(box.low.y, p.y), std::min(box.low.z, p.z)};
        box.high = {std::max(box.high.x, p.x), std::max(box.high.y, p.y), std::max(box.high.z, p.z)};
      }
    }
    for (std::size_t a = 0; a < count; ++a) {
      EXPECT_NEAR(boxes[a].low.z, boxes[0].low.z, 1e-4F);
      for (std::size_t b = a + 1; b < count; ++b) {
        Vec3 const centre_a = (boxes[a].low + boxes[a].high) * 0.5F, centre_b = (boxes[b].low + boxes[b].high) * 0.5F;
        float const radii = 0.5F * (boxes[a].high.x - boxes[a].low.x + boxes[b].high.x - boxes[b].low.x);
        EXPECT_GT(std::hypot(centre_a.x - centre_b.x, centre_a.y - centre_b.y), radii) << count << ": " << a << ", " << b;
      }
    }
  }
}

TEST(ArrangementTest, TheGroundLiesUnderTheObjectsAndReachesBeyondThem) {
  Object const scene = arranged({ball(0.5F, metal({0.9F, 0.9F, 0.9F}, 0.4F))}, Ground::disc, "one", KeyedRandom(2));
  Box ball_box{{9, 9, 9}, {-9, -9, -9}}, ground_box = ball_box;
  for (std::uint32_t t = 0; t < scene.mesh.triangles.size(); ++t) {
    bool const is_ball = mean(scene.surface_at({scene.mesh.points[scene.mesh.triangles[t][0]], t, 0, 0}).specular) > 0.5F;
    for (std::uint32_t const corner : scene.mesh.triangles[t]) {
      Vec3 const p = scene.mesh.points[corner];
      Box& box = is_ball ? ball_box : ground_box;
      box.low = {std::min(box.low.x, p.x), std::min(box.low.y, p.y), std::min(box.low.z, p.z)};
      box.high = {std::max(box.high.x, p.x), std::max(box.high.y, p.y), std::max(box.high.z, p.z)};
    }
  }
  EXPECT_NEAR(ball_box.low.z, ground_box.high.z, 0.005F);
  EXPECT_LT(ground_box.low.x, ball_box.low.x - 0.05F);
  EXPECT_GT(ground_box.high.y, ball_box.high.y + 0.05F);
  EXPECT_LT(ball_box.high.z - ground_box.high.z, kLongestSide);
}

class MeshObjectsTest : public ::testing::Test {
 protected:
  MeshObjectsTest() : folder_(std::filesystem::path(::testing::TempDir()) / "synth_objects") {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    for (char const* name : {"a b_env_1.ply", "a_b_env_1.obj", "c.obj"}) {
      std::ofstream(folder_ / name) << (std::string(name).ends_with("ply")
                                            ? "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
                                              "property float z\nelement face 1\nproperty list uchar int vertex_indices\n"
                                              "end_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
                                            : "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n");
    }
    options_.meshes = folder_.string();
  }
  ~MeshObjectsTest() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
  ObjectOptions options_;
};

TEST_F(MeshObjectsTest, FilesTakeTurnsUnderNamesThatSceneNamesCanHold) {
  ObjectMaker const maker(options_, 0);
  EXPECT_EQ(maker.files(), 3);
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < 4; ++i) {
    names.push_back(maker.make(i).name);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"a-b-env-1", "a-b-env-1-2", "c", "a-b-env-1_1"}));
}

TEST_F(MeshObjectsTest, AMeshWithoutColoursGetsSeededOnes) {
  Surface const first = ObjectMaker(options_, 0).make(2).surface_at({{0.1F, 0.2F, 0.3F}, 0, 0, 0});
  Surface const again = ObjectMaker(options_, 0).make(2).surface_at({{0.1F, 0.2F, 0.3F}, 0, 0, 0});
  Surface const other = ObjectMaker(options_, 1).make(2).surface_at({{0.1F, 0.2F, 0.3F}, 0, 0, 0});
  EXPECT_TRUE(same(first.diffuse, again.diffuse) && same(first.specular, again.specular));
  EXPECT_FALSE(same(first.diffuse, other.diffuse) && same(first.specular, other.specular));
}

TEST_F(MeshObjectsTest, SeveralToASceneAreAGroup) {
  options_.per_scene = 3;
  options_.ground = Ground::disc;
  Object const group = ObjectMaker(options_, 0).make(0);
  EXPECT_EQ(group.name, "group_000");
  EXPECT_TRUE(group.mesh.two_sided);
  EXPECT_EQ(group.mesh.triangles.size(), 3U + 4 * 128);
}

}  // namespace
}  // namespace duoflow::data
