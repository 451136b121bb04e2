#pragma once
// A path tracer for many lights at once. Light transport is linear in the light, so paths are traced once per pixel without
// looking at any light: a path that leaves the object gives its throughput to the texel of the sphere it leaves through. A
// pixel's value under a light is then the sum over texels of throughput * radiance. Two hundred lights cost hardly more than twenty.
//
// Nothing is clamped: the mean over many samples is the integral, up to the paths that end at the last allowed surface with
// what they carry (dark by less than that; benchmarks/results/synth.md). With light directions, both kinds of direction
// are weighed by the balance heuristic of their densities.
//
// Lights are piecewise constant over the texels of their maps. The background is not shown; coverage is the alpha.
// A pixel's random numbers depend on (key, pixel, sample) alone and its sums run in a fixed order: the result does not depend
// on the number of threads. Bytes are promised for processors with AVX2 and one version of Embree and the C library.

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "data/images/image_io.h"
#include "data/synth/scene.h"

namespace duoflow::data {

// The texel of a map height x width through which a unit direction leaves (environment_map.h).
std::int64_t texel_towards(Vec3 direction, std::int64_t height, std::int64_t width);

// The maps of all lights, [texel][3][stride], lights innermost and padded with zeros.
class LightTable {
 public:
  explicit LightTable(std::vector<ImageF> const& maps);  // at least one, all of one size
  std::int64_t height() const { return height_; }
  std::int64_t width() const { return width_; }
  std::int64_t lights() const { return lights_; }
  std::int64_t stride() const { return stride_; }
  float const* texel(std::int64_t index) const { return &values_[static_cast<std::size_t>(index * 3 * stride_)]; }

 private:
  std::int64_t height_, width_, lights_, stride_;
  std::vector<float> values_;
};

struct TraceOptions {
  std::int64_t samples_per_pixel = 64;  // camera rays; 1 to kMostSamples; powers of two are stratified best
  std::uint64_t key = 0;                // of the random numbers
  int threads = 0;                      // 0: all cores
  int bounces = 4;                      // surfaces a path may meet: 1 is direct light alone; 1 to kMostBounces
  // Directions towards the lights (light_directions.h) from the first surface, besides the 16 of its reflection; from later
  // surfaces a 16th of them, at least one. 0: none. They find small bright lights: benchmarks/results/synth.md has what they buy.
  int light_directions = 0;             // 0 to kMostLightDirections
};
inline constexpr std::int64_t kMostSamples = 2048;  // the sample sequence of the second vertex repeats after this
inline constexpr int kMostBounces = 16, kMostLightDirections = 32;

// Called once per pixel, from any thread, in any order. radiance is [3][stride], linear, the mean over the camera samples
// that hit the object (zeros where none did).
using PixelSink = std::function<void(std::int64_t row, std::int64_t column, float coverage, float const* radiance)>;

class PathTracer {
 public:
  explicit PathTracer(Object const& object);  // which must stay alive
  ~PathTracer();
  PathTracer(PathTracer const&) = delete;

  void trace(Camera const& camera, LightTable const& lights, TraceOptions const& options, PixelSink const& sink) const;

 private:
  struct Scene;
  class Walker;
  std::unique_ptr<Scene> scene_;
};

}  // namespace duoflow::data
