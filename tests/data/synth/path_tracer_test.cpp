#include "data/synth/path_tracer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numbers>

#include "data/error.h"

namespace duoflow::data {
namespace {

constexpr double kPi = std::numbers::pi;
constexpr float kRadius = 0.7F;

Object matte_sphere(Vec3 albedo) {
  Object object;
  object.name = "sphere";
  object.mesh = mesh_of([](Vec3 p) { return length(p) - kRadius; }, 0.8F, 64);
  object.surface_at = [albedo](SurfacePoint const&) { return matte(albedo); };
  return object;
}

float wall_of_bowl(float radius, float z) {  // the wall of a bowl open to the top: minus its field
  return std::min({0.7F - radius, radius - 0.6F, 0.35F - z});
}

// At `distance` from the origin in a direction, looking at the origin.
Camera look_from(Vec3 direction, float distance, float focal, std::int64_t size) {
  Vec3 const forward = -normalised(direction);
  Vec3 const right = normalised(cross(forward, std::abs(forward.z) > 0.9F ? Vec3{0, 1, 0} : Vec3{0, 0, 1})), down = cross(forward, right);
  Vec3 const eye = forward * -distance;
  auto const s = static_cast<float>(size);
  return {{right.x, down.x, forward.x, eye.x, right.y, down.y, forward.y, eye.y, right.z, down.z, forward.z, eye.z, 0, 0, 0, 1},
          {focal, focal, s / 2, s / 2},
          size};
}

ImageF constant_map(float value) { return {8, 16, std::vector<float>(8 * 16 * 3, value)}; }

ImageF one_hot(std::size_t row, std::size_t column, std::size_t channel) {
  ImageF map = constant_map(0);
  map.pixels[(row * 16 + column) * 3 + channel] = 1;
  return map;
}

struct Picture {
  std::vector<float> coverage, radiance;  // [pixels], [pixels][3][lights]
};

Picture trace(Object const& object, Camera const& camera, std::vector<ImageF> const& maps, TraceOptions const& options) {
  LightTable const table(maps);
  auto const pixels = static_cast<std::size_t>(camera.size * camera.size), lights = maps.size();
  Picture picture{std::vector<float>(pixels), std::vector<float>(pixels * 3 * lights)};
  PathTracer(object).trace(camera, table, options, [&](std::int64_t row, std::int64_t column, float coverage, float const* radiance) {
    auto const pixel = static_cast<std::size_t>(row * camera.size + column);
    picture.coverage[pixel] = coverage;
    for (std::size_t i = 0; i < 3 * lights; ++i) {
      picture.radiance[pixel * 3 * lights + i] = radiance[i / lights * static_cast<std::size_t>(table.stride()) + i % lights];
    }
  });
  return picture;
}

TEST(PathTracerTest, AConvexMatteSphereInUniformLightShowsItsAlbedo) {
  Picture const picture =
      trace(matte_sphere({0.8F, 0.5F, 0.2F}), look_from({1, -1, 0.5F}, 2.5F, 20, 16), {constant_map(1)}, {.samples_per_pixel = 16});
  int full = 0;
  for (std::size_t p = 0; p < picture.coverage.size(); ++p) {
    if (picture.coverage[p] == 1) {
      ++full;
      EXPECT_NEAR(picture.radiance[p * 3], 0.8F, 0.008F);  // the facets shade a hundredth of the horizon at most
      EXPECT_NEAR(picture.radiance[p * 3 + 1], 0.5F, 0.005F);
      EXPECT_NEAR(picture.radiance[p * 3 + 2], 0.2F, 0.002F);
    }
  }
  EXPECT_GT(full, 40);
}

TEST(PathTracerTest, NoProceduralObjectReflectsMoreThanItReceives) {
  for (std::int64_t o : {0, 3, 6, 9, 12, 13}) {
    Object const object = make_object(1, o);
    Picture const picture = trace(object, make_camera(1, o, 0, 12, object.mesh), {constant_map(1)}, {.samples_per_pixel = 16});
    for (float const value : picture.radiance) {
      EXPECT_LE(value, 1.02F) << object.name;
    }
  }
}

// Irradiance on a surface of normal n from one texel of an 8 x 16 map of radiance 1, wholly above n's horizon: the integral of
// n . d over the texel, with d and dw in the map's angles.
double texel_irradiance(int row, int column, Vec3 n) {
  double const t0 = kPi * row / 8, t1 = kPi * (row + 1) / 8, p1 = kPi - 2 * kPi * column / 16, p0 = kPi - 2 * kPi * (column + 1) / 16;
  double const sine_squared = (t1 - t0) / 2 - (std::sin(2 * t1) - std::sin(2 * t0)) / 4;
  double const sine_cosine = (std::cos(2 * t0) - std::cos(2 * t1)) / 4;
  return static_cast<double>(n.x) * sine_squared * (std::sin(p1) - std::sin(p0)) +
         static_cast<double>(n.y) * sine_squared * (std::cos(p0) - std::cos(p1)) + static_cast<double>(n.z) * sine_cosine * (p1 - p0);
}

TEST(PathTracerTest, OneTexelLightsTheNormalsThatFaceItByTheCosineLaw) {
  Object const sphere = matte_sphere({0.9F, 0.6F, 0.3F});
  struct Case {
    int row, column;
    Vec3 normal;
  };
  // Columns 7, 8 look to +X; 3, 4 to +Y; 11, 12 to -Y; row 0 to +Z.
  Case const cases[] = {{3, 7, {1, 0, 0}}, {4, 4, {0, 1, 0}}, {3, 11, {0, -1, 0}}, {0, 5, {0, 0, 1}}, {7, 2, {0, 0, -1}},
                        {3, 8, {0.5F, 0.5F, 0.70710678F}}, {4, 15, {-1, 0, 0}}};
  for (Case const& c : cases) {
    std::size_t const channel = static_cast<std::size_t>(c.row) % 3;
    float const albedo = channel == 0 ? 0.9F : channel == 1 ? 0.6F : 0.3F;
    ImageF const map = one_hot(static_cast<std::size_t>(c.row), static_cast<std::size_t>(c.column), channel);
    // One pixel of 0.2 degrees: its normal is the viewing direction.
    Picture const picture = trace(sphere, look_from(c.normal, 2.5F, 300, 1), {map}, {.samples_per_pixel = 1024});
    double const expected = static_cast<double>(albedo) / kPi * texel_irradiance(c.row, c.column, c.normal);
    EXPECT_NEAR(static_cast<double>(picture.radiance[channel]), expected, 0.03 * expected) << "row " << c.row << " column " << c.column;
    EXPECT_EQ(picture.radiance[(channel + 1) % 3], 0.0F);
    Picture const behind = trace(sphere, look_from(-c.normal, 2.5F, 300, 1), {map}, {.samples_per_pixel = 64});
    EXPECT_EQ(behind.radiance[channel], 0.0F);
  }
}

// A closed box of half side `half`, its normals those of its sides.
Object cube(float half, Surface const& surface) {
  Object object;
  object.name = "cube";
  for (int axis = 0; axis < 3; ++axis) {
    for (float const sign : {-1.0F, 1.0F}) {
      auto const at = [&](float u, float v) {
        float p[3];
        p[axis] = sign * half;
        p[(axis + 1) % 3] = sign * u * half;
        p[(axis + 2) % 3] = v * half;
        return Vec3{p[0], p[1], p[2]};
      };
      auto const base = static_cast<std::uint32_t>(object.mesh.points.size());
      for (Vec3 const& p : {at(-1, -1), at(1, -1), at(1, 1), at(-1, 1)}) { object.mesh.points.push_back(p); }
      Vec3 const normal{axis == 0 ? sign : 0, axis == 1 ? sign : 0, axis == 2 ? sign : 0};
      object.mesh.normals.insert(object.mesh.normals.end(), 4, normal);
      object.mesh.triangles.push_back({base, base + 1, base + 2});
      object.mesh.triangles.push_back({base, base + 2, base + 3});
    }
  }
  object.surface_at = [surface](SurfacePoint const&) { return surface; };
  return object;
}

TEST(PathTracerTest, AWhiteConvexBodyInAUniformFurnaceShowsExactlyOne) {
  Picture const picture = trace(cube(0.6F, matte({1, 1, 1})), look_from({1, -0.7F, 0.6F}, 3, 24, 16), {constant_map(1)}, {.samples_per_pixel = 16});
  int full = 0;
  for (std::size_t p = 0; p < picture.coverage.size(); ++p) {
    if (picture.coverage[p] == 1) {
      ++full;
      EXPECT_EQ(picture.radiance[p * 3], 1.0F);
      EXPECT_EQ(picture.radiance[p * 3 + 2], 1.0F);
    }
  }
  EXPECT_GT(full, 30);
}

// In a furnace a white surface of any form shows 1; what a limited number of bounces leaves out is the paths still inside.
TEST(PathTracerTest, MoreBouncesFillAWhiteHollowUpToOne) {
  Object bowl;
  bowl.name = "bowl";
  bowl.mesh = mesh_of([](Vec3 p) { return -wall_of_bowl(length(p), p.z); }, 0.8F, 48);
  bowl.surface_at = [](SurfacePoint const&) { return matte({1, 1, 1}); };
  float before = 0;
  for (int const bounces : {1, 2, 4, 16}) {
    Picture const picture = trace(bowl, look_from({0.01F, 0, 1}, 2.5F, 60, 1), {constant_map(1)}, {.samples_per_pixel = 256, .bounces = bounces});
    EXPECT_GT(picture.radiance[0], before + 0.005F) << bounces;
    EXPECT_LE(picture.radiance[0], 1.0001F) << bounces;
    before = picture.radiance[0];
  }
  EXPECT_GT(before, 0.97F);  // the facets shade a little
}

TEST(PathTracerTest, LightDirectionsKeepTheMeanAndQuietASmallLight) {
  Object const object = make_object(1, 5);
  Camera const camera = make_camera(1, 5, 2, 12, object.mesh);
  ImageF sun = constant_map(0.1F);
  sun.pixels[(2 * 16 + 4) * 3] = sun.pixels[(2 * 16 + 4) * 3 + 1] = 60;
  std::vector<ImageF> const maps{sun};
  Picture const truth = trace(object, camera, maps, {.samples_per_pixel = 1024});  // by reflections alone
  auto const error = [&](TraceOptions const& options) {  // of the pixels wholly covered: root mean square, and mean
    Picture const picture = trace(object, camera, maps, options);
    double squares = 0, difference = 0, count = 0;
    for (std::size_t i = 0; i < truth.radiance.size(); ++i) {
      if (truth.coverage[i / 3] < 1) { continue; }
      double const d = static_cast<double>(picture.radiance[i] - truth.radiance[i]);
      squares += d * d;
      difference += d;
      ++count;
    }
    return std::array<double, 2>{std::sqrt(squares / count), difference / count};
  };
  auto const without = error({.samples_per_pixel = 16}), with = error({.samples_per_pixel = 16, .light_directions = 16});
  EXPECT_LT(with[0], 0.5 * without[0]);
  EXPECT_NEAR(with[1], 0, 0.006);  // 1.5 % of the mean
}

TEST(PathTracerTest, LightDirectionsFollowTheCosineLawToo) {
  Object const sphere = matte_sphere({0.9F, 0.9F, 0.9F});
  ImageF const map = one_hot(2, 7, 1);
  Picture const picture = trace(sphere, look_from({1, 0, 0.2F}, 2.5F, 300, 1), {map}, {.samples_per_pixel = 64, .light_directions = 16});
  double const expected = 0.9 / kPi * texel_irradiance(2, 7, normalised({1, 0, 0.2F}));
  EXPECT_NEAR(static_cast<double>(picture.radiance[1]), expected, 0.01 * expected);
  EXPECT_EQ(picture.radiance[0], 0.0F);
}

TEST(PathTracerTest, AnOpenMeshIsSeenAndLitFromBothSides) {
  Object sheet;
  sheet.name = "sheet";
  sheet.mesh = {{{0, -1, -1}, {0, 1, -1}, {0, 1, 1}, {0, -1, 1}}, std::vector<Vec3>(4, Vec3{1, 0, 0}), {{0, 1, 2}, {0, 2, 3}}, true};
  sheet.surface_at = [](SurfacePoint const&) { return matte({0.5F, 0.5F, 0.5F}); };
  for (float const side : {1.0F, -1.0F}) {
    Picture const picture = trace(sheet, look_from({side, 0, 0}, 3, 8, 2), {constant_map(1)}, {.samples_per_pixel = 4});
    EXPECT_EQ(picture.coverage[0], 1.0F);
    EXPECT_EQ(picture.radiance[0], 0.5F);
  }
  sheet.mesh.two_sided = false;
  EXPECT_EQ(trace(sheet, look_from({-1, 0, 0}, 3, 8, 2), {constant_map(1)}, {.samples_per_pixel = 4}).radiance[0], 0.0F);
}

TEST(PathTracerTest, ThePictureUnderTwoLightsIsTheSumOfTheirPictures) {
  Object const object = make_object(0, 3);
  ImageF const a = one_hot(2, 3, 0);
  ImageF b = constant_map(0.5F), both = a;
  for (std::size_t i = 0; i < both.pixels.size(); ++i) {
    both.pixels[i] += b.pixels[i];
  }
  Picture const picture = trace(object, make_camera(0, 3, 1, 12, object.mesh), {a, b, both}, {.samples_per_pixel = 8});
  for (std::size_t i = 0; i < picture.radiance.size(); i += 3) {
    EXPECT_NEAR(picture.radiance[i] + picture.radiance[i + 1], picture.radiance[i + 2], 1e-5F);
  }
}

TEST(PathTracerTest, TheOtherLightsOfATableDoNotChangeALightsPicture) {
  Object const object = make_object(0, 1);
  Camera const camera = make_camera(0, 1, 0, 8, object.mesh);
  ImageF const light = one_hot(1, 6, 1);
  Picture const alone = trace(object, camera, {light}, {.samples_per_pixel = 8});
  std::vector<ImageF> many(11, constant_map(3));
  many[9] = light;
  Picture const among = trace(object, camera, many, {.samples_per_pixel = 8});
  for (std::size_t i = 0; i < alone.radiance.size(); ++i) {
    EXPECT_EQ(alone.radiance[i], among.radiance[i * 11 + 9]);
  }
}

TEST(PathTracerTest, CoverageOfASphereIsItsSilhouettesArea) {
  float const focal = 40, distance = 2.5F;
  Picture const picture = trace(matte_sphere({1, 1, 1}), look_from({1, 0, 0}, distance, focal, 32), {constant_map(1)}, {.samples_per_pixel = 64});
  double area = 0;
  for (float const coverage : picture.coverage) {
    area += static_cast<double>(coverage);
  }
  double const tangent = std::tan(std::asin(static_cast<double>(kRadius / distance))), radius = static_cast<double>(focal) * tangent;
  EXPECT_NEAR(area, kPi * radius * radius, 0.005 * kPi * radius * radius);
  EXPECT_EQ(picture.coverage.front(), 0.0F);
  EXPECT_EQ(picture.coverage[16 * 32 + 16], 1.0F);
  EXPECT_EQ(picture.radiance.front(), 0.0F);
}

TEST(PathTracerTest, ResultDoesNotDependOnTheNumberOfThreads) {
  Object const object = make_object(0, 4);
  Camera const camera = make_camera(0, 4, 2, 16, object.mesh);
  Picture const one = trace(object, camera, {constant_map(1), one_hot(1, 1, 2)}, {.samples_per_pixel = 8, .threads = 1});
  Picture const three = trace(object, camera, {constant_map(1), one_hot(1, 1, 2)}, {.samples_per_pixel = 8, .threads = 3});
  EXPECT_EQ(one.radiance, three.radiance);
  EXPECT_EQ(one.coverage, three.coverage);
}

TEST(PathTracerTest, CountsOutOfRangeAreErrors) {
  Object const object = matte_sphere({1, 1, 1});
  for (std::int64_t samples : {std::int64_t{0}, kMostSamples + 1}) {
    EXPECT_THROW(trace(object, look_from({1, 0, 0}, 2, 1, 1), {constant_map(1)}, {.samples_per_pixel = samples}), DataError);
  }
  for (int const bounces : {0, kMostBounces + 1}) {
    EXPECT_THROW(trace(object, look_from({1, 0, 0}, 2, 1, 1), {constant_map(1)}, {.bounces = bounces}), DataError);
  }
  for (int const directions : {-1, kMostLightDirections + 1}) {
    EXPECT_THROW(trace(object, look_from({1, 0, 0}, 2, 1, 1), {constant_map(1)}, {.light_directions = directions}), DataError);
  }
}

}  // namespace
}  // namespace duoflow::data
