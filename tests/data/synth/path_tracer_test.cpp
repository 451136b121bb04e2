#include "data/synth/path_tracer.h"

#include <gtest/gtest.h>

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
  for (std::int64_t o : {0, 3, 6}) {
    Object const object = make_object(1, o);
    Picture const picture = trace(object, make_camera(1, o, 0, 16, object.mesh), {constant_map(1)}, {.samples_per_pixel = 16});
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

TEST(PathTracerTest, SampleCountsOutOfRangeAreErrors) {
  Object const object = matte_sphere({1, 1, 1});
  for (std::int64_t samples : {std::int64_t{0}, kMostSamples + 1}) {
    EXPECT_THROW(trace(object, look_from({1, 0, 0}, 2, 1, 1), {constant_map(1)}, {.samples_per_pixel = samples}), DataError);
  }
}

}  // namespace
}  // namespace duoflow::data
