#pragma once
// Directions drawn by the lights of a table rather than by a surface. One density serves all lights at once: a texel is drawn in
// proportion to its solid angle and the root mean square of its luminance over the lights (each scaled to mean 1), which is the
// density with the smallest summed variance over the lights when nothing is known of the surface. A single sun gets nearly every
// direction; hundreds of different maps share them, and the density tends to the uniform one.

#include <cstdint>
#include <vector>

#include "data/synth/path_tracer.h"
#include "data/synth/sample_points.h"

namespace duoflow::data {

class LightDirections {
 public:
  explicit LightDirections(LightTable const& lights);

  struct Drawn {
    Vec3 direction;  // uniform over the texel's solid angle
    std::int64_t texel;
    float density;  // per solid angle
  };
  Drawn draw(Point2 sample) const;
  float density(std::int64_t texel) const { return density_[static_cast<std::size_t>(texel)]; }

 private:
  std::int64_t height_, width_;
  std::vector<float> density_;       // [texel]
  std::vector<float> rows_, texels_;  // sums of probability up to and with a row [h], with a texel within its row [h][w]
};

}  // namespace duoflow::data
