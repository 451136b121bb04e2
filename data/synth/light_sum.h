#pragma once
// The inner loop of relighting: which texels a pixel sees with which weight, and the sum over them for all lights.

#include <array>
#include <cstdint>
#include <vector>

#include "data/synth/path_tracer.h"

namespace duoflow::data {

class LightSum {
 public:
  explicit LightSum(LightTable const& lights);
  void add(std::int64_t texel, Vec3 throughput);  // of a path that leaves the object through it
  // sums = scale * sum over texels (in index order) of weight * radiance, [3][stride]; forgets the weights.
  float const* finish(float scale);

 private:
  LightTable const& lights_;
  std::vector<std::array<float, 3>> weights_;  // by texel
  std::vector<std::uint64_t> touched_;         // one bit per texel
  std::vector<float> sums_;
};

}  // namespace duoflow::data
