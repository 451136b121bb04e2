// How noisy synth's pictures are, and what looking towards the lights buys: against a closed form, and at equal processor time.
//   build/synth_noise        prints the tables of benchmarks/results/synth.md; one thread, so that processor time is what counts

#include <cmath>
#include <cstdio>
#include <ctime>
#include <numbers>
#include <utility>
#include <vector>

#include "data/synth/lights.h"
#include "data/synth/path_tracer.h"

using namespace duoflow::data;

namespace {

constexpr double kPi = std::numbers::pi;

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Picture {
  std::vector<float> coverage, radiance;  // [pixels], [pixels][3][lights]
  double seconds = 0;
};

Picture trace(Object const& object, Camera const& camera, LightTable const& table, TraceOptions options) {
  options.threads = 1;
  auto const pixels = static_cast<std::size_t>(camera.size * camera.size), lights = static_cast<std::size_t>(table.lights());
  Picture picture{std::vector<float>(pixels), std::vector<float>(pixels * 3 * lights), 0};
  PathTracer const tracer(object);
  double const start = processor_seconds();
  tracer.trace(camera, table, options, [&](std::int64_t row, std::int64_t column, float coverage, float const* radiance) {
    auto const pixel = static_cast<std::size_t>(row * camera.size + column);
    picture.coverage[pixel] = coverage;
    for (std::size_t i = 0; i < 3 * lights; ++i) {
      picture.radiance[pixel * 3 * lights + i] = radiance[i / lights * static_cast<std::size_t>(table.stride()) + i % lights];
    }
  });
  picture.seconds = processor_seconds() - start;
  return picture;
}

// Root mean square difference over wholly covered pixels and all lights.
double rms(Picture const& a, Picture const& b, std::size_t lights) {
  double squares = 0, count = 0;
  for (std::size_t i = 0; i < a.radiance.size(); ++i) {
    std::size_t const pixel = i / (3 * lights);
    if (a.coverage[pixel] < 1 || b.coverage[pixel] < 1) {
      continue;
    }
    double const d = static_cast<double>(a.radiance[i] - b.radiance[i]);
    squares += d * d;
    ++count;
  }
  return std::sqrt(squares / count);
}

std::vector<ImageF> lights_of(std::int64_t count, std::vector<LightKind> const& kinds) {
  std::vector<ImageF> lights;
  for (std::int64_t l = 0; l < count; ++l) {
    lights.push_back(procedural_light(0, l, 32, kinds));
  }
  return lights;
}

// Irradiance on normal n from texel (row, column) of radiance 1, wholly above its horizon, of a map 32 x 64.
double texel_irradiance(int row, int column, Vec3 n) {
  double const t0 = kPi * row / 32, t1 = kPi * (row + 1) / 32, p1 = kPi - 2 * kPi * column / 64, p0 = kPi - 2 * kPi * (column + 1) / 64;
  double const sine_squared = (t1 - t0) / 2 - (std::sin(2 * t1) - std::sin(2 * t0)) / 4,
               sine_cosine = (std::cos(2 * t0) - std::cos(2 * t1)) / 4;
  return static_cast<double>(n.x) * sine_squared * (std::sin(p1) - std::sin(p0)) +
         static_cast<double>(n.y) * sine_squared * (std::cos(p0) - std::cos(p1)) + static_cast<double>(n.z) * sine_cosine * (p1 - p0);
}

void closed_form() {
  constexpr float kRadius = 0.7F, kFocal = 40, kDistance = 2.5F;
  constexpr std::int64_t kSize = 16;
  Object sphere;
  sphere.name = "sphere";
  sphere.mesh = mesh_of([](Vec3 p) { return length(p) - kRadius; }, 0.75F, 128);
  sphere.surface_at = [](SurfacePoint const&) { return matte({1, 1, 1}); };
  Camera const camera{{0, 0, -1, kDistance, 1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, 1}, {kFocal, kFocal, kSize / 2.0F, kSize / 2.0F}, kSize};
  ImageF map{32, 64, std::vector<float>(32 * 64 * 3, 0.0F)};
  int const row = 10, column = 28;  // high in front, a little to the left
  for (std::size_t c = 0; c < 3; ++c) {
    map.pixels[static_cast<std::size_t>((row * 64 + column) * 3) + c] = 1;
  }
  std::printf(
      "## A white matte sphere under one texel of 5.6 degrees: radiance against (1/pi) x the integral of the cosine over the texel\n\n");
  std::printf(
      "| paths per pixel | reflections alone: RMS error / mean | s | with 16 light directions: RMS error / mean | mean error / mean | s "
      "|\n|---|---|---|---|---|---|\n");
  for (std::int64_t const spp : {4, 16, 64, 256, 1024}) {
    double errors[2], bias[2], seconds[2];
    for (int looks = 0; looks < 2; ++looks) {
      Picture const picture = trace(sphere, camera, LightTable({map}), {.samples_per_pixel = spp, .light_directions = 16 * looks});
      double squares = 0, sum = 0, mean = 0;
      int count = 0;
      for (std::int64_t p = 0; p < kSize * kSize; ++p) {
        Vec3 const d = normalised({-1, (static_cast<float>(p % kSize) + 0.5F - kSize / 2.0F) / kFocal,
                                   -(static_cast<float>(p / kSize) + 0.5F - kSize / 2.0F) / kFocal});
        float const b = kDistance * d.x, root = b * b - kDistance * kDistance + kRadius * kRadius;
        if (root < 0 || picture.coverage[static_cast<std::size_t>(p)] < 1) {
          continue;
        }
        Vec3 const n = normalised(Vec3{kDistance, 0, 0} + d * (-b - std::sqrt(root)));
        float const theta = (row + 0.5F) * std::numbers::pi_v<float> / 32, phi = std::numbers::pi_v<float> * (1 - 2 * (column + 0.5F) / 64);
        if (dot(n, {std::sin(theta) * std::cos(phi), std::sin(theta) * std::sin(phi), std::cos(theta)}) < 0.15F) {
          continue;
        }  // the texel may dip below the horizon
        double const expected = texel_irradiance(row, column, n) / kPi,
                     error = static_cast<double>(picture.radiance[static_cast<std::size_t>(p) * 3]) - expected;
        squares += error * error;
        sum += error;
        mean += expected;
        ++count;
      }
      errors[looks] = std::sqrt(squares / count) / (mean / count);
      bias[looks] = sum / mean;
      seconds[looks] = picture.seconds;
    }
    std::printf("| %d | %.2f %% | %.2f | %.2f %% | %+.3f %% | %.2f |\n", static_cast<int>(spp), 100 * errors[0], seconds[0],
                100 * errors[1], 100 * bias[1], seconds[1]);
  }
}

// Variance times processor time: how much longer one method takes to the same noise.
void equal_time() {
  std::printf(
      "\n## Looking towards the lights (16 directions) against reflections alone, and against rendering one light at a time\n\n"
      "Of the dice and the rings, 32 x 32 px, against 512 paths with directions. Gain: processor time that reflections alone, or one light "
      "at a time (each with its own light directions), "
      "take to the same mean squared error.\n\n");
  std::printf(
      "| lights | number | RMS error reflections, 16 paths | s | RMS error with directions, 16 paths | s | gain over reflections | gain "
      "over one at a time |\n|---|---|---|---|---|---|---|---|\n");
  std::pair<char const*, std::vector<LightKind>> const lights[] = {
      {"sun-sky", {LightKind::sun_sky}}, {"studio", {LightKind::studio}}, {"sky and area", kSoftLights}};
  for (auto const& [name, kinds] : lights) {
    double alone = 0;  // variance x time of one light with directions
    for (std::int64_t const count : {1, 8, 128}) {
      std::vector<ImageF> const maps = lights_of(count, kinds);
      LightTable const table(maps);
      double squares[2] = {0, 0}, seconds[2] = {0, 0};
      for (std::int64_t const o : {0, 7}) {
        Object const object = make_object(0, o);
        Camera const camera = make_camera(0, o, 1, 32, object.mesh);
        Picture const truth = trace(object, camera, table, {.samples_per_pixel = 512, .key = 9, .light_directions = 16});
        for (int looks = 0; looks < 2; ++looks) {
          Picture const picture = trace(object, camera, table, {.samples_per_pixel = 16, .light_directions = 16 * looks});
          double const error = rms(picture, truth, static_cast<std::size_t>(count));
          squares[looks] += 0.5 * error * error;
          seconds[looks] += picture.seconds;
        }
      }
      if (count == 1) {
        alone = squares[1] * seconds[1];
      }
      std::printf("| %s | %d | %.4f | %.2f | %.4f | %.2f | %.1f | %.1f |\n", name, static_cast<int>(count), std::sqrt(squares[0]),
                  seconds[0], std::sqrt(squares[1]), seconds[1], squares[0] * seconds[0] / (squares[1] * seconds[1]),
                  static_cast<double>(count) * alone / (squares[1] * seconds[1]));
    }
  }
}

void bounces() {
  std::printf(
      "\n## Light that paths of few surfaces leave out: mean radiance in a furnace, as a share of that with 16 surfaces\n\n| object | 1 | "
      "2 | 3 | 4 (default) | 6 | 8 |\n|---|---|---|---|---|---|---|\n");
  LightTable const furnace({ImageF{8, 16, std::vector<float>(8 * 16 * 3, 1.0F)}});
  for (std::int64_t const o : {0, 3, 4, 7, 8, 13}) {
    for (bool const own : {true, false}) {
      Object object = make_object(0, o);
      if (!own) {
        object.surface_at = [](SurfacePoint const&) { return matte({0.8F, 0.8F, 0.8F}); };
      }
      Camera const camera = make_camera(0, o, 4, 24, object.mesh);
      auto const mean = [&](int most) {
        Picture const picture = trace(object, camera, furnace, {.samples_per_pixel = 32, .bounces = most});
        double sum = 0;
        for (std::size_t i = 0; i < picture.radiance.size(); ++i) {
          sum += static_cast<double>(picture.radiance[i] * picture.coverage[i / 3]);
        }
        return sum;
      };
      double const all = mean(kMostBounces);
      std::printf("| %s, %s |", object.name.c_str(), own ? "its own materials" : "matte of albedo 0.8");
      for (int const most : {1, 2, 3, 4, 6, 8}) {
        std::printf(" %.2f %% |", 100 * mean(most) / all);
      }
      std::printf("\n");
    }
  }
}

}  // namespace

int main() {
  closed_form();
  equal_time();
  bounces();
}
