#include "data/synth/light_sum.h"

#include <algorithm>
#include <bit>
#include <numbers>

namespace duoflow::data {
namespace {

constexpr std::int64_t kLane = 8;  // the stride is a multiple of it

// The same additions and products in the same order on every processor (this file is compiled without contraction to fused
// multiply-adds); wider registers only do more lights at a time.
__attribute__((always_inline)) inline void add_texel_loop(float* sums, float const* radiance, float const* weight, std::int64_t stride) {
  for (std::int64_t c = 0; c < 3; ++c) {
    float* const __restrict to = sums + c * stride;
    float const* const __restrict from = radiance + c * stride;
    float const w = weight[c];
    for (std::int64_t l = 0; l < stride; l += kLane) {
      for (std::int64_t lane = 0; lane < kLane; ++lane) {
        to[l + lane] += w * from[l + lane];
      }
    }
  }
}

void add_texel_plain(float* sums, float const* radiance, float const* weight, std::int64_t stride) {
  add_texel_loop(sums, radiance, weight, stride);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void add_texel_avx2(float* sums, float const* radiance, float const* weight, std::int64_t stride) {
  add_texel_loop(sums, radiance, weight, stride);
}
auto const add_texel = __builtin_cpu_supports("avx2") ? add_texel_avx2 : add_texel_plain;
#else
auto const add_texel = add_texel_plain;
#endif

}  // namespace

LightTable::LightTable(std::vector<ImageF> const& maps)
    : height_(maps.front().height),
      width_(maps.front().width),
      lights_(static_cast<std::int64_t>(maps.size())),
      stride_((lights_ + kLane - 1) / kLane * kLane),
      values_(static_cast<std::size_t>(height_ * width_ * 3 * stride_)) {
  for (std::int64_t l = 0; l < lights_; ++l) {
    for (std::int64_t i = 0; i < height_ * width_ * 3; ++i) {
      values_[static_cast<std::size_t>(i * stride_ + l)] = maps[static_cast<std::size_t>(l)].pixels[static_cast<std::size_t>(i)];
    }
  }
}

std::int64_t texel_towards(Vec3 direction, std::int64_t height, std::int64_t width) {
  constexpr float kPi = std::numbers::pi_v<float>;
  auto const cell = [](float at, std::int64_t count) {
    return std::clamp(static_cast<std::int64_t>(at * static_cast<float>(count)), std::int64_t{0}, count - 1);
  };
  std::int64_t const row = cell(std::acos(std::clamp(direction.z, -1.0F, 1.0F)) / kPi, height);
  return row * width + cell(0.5F - std::atan2(direction.y, direction.x) / (2 * kPi), width);
}

LightSum::LightSum(LightTable const& lights)
    : lights_(lights),
      weights_(static_cast<std::size_t>(lights.height() * lights.width())),
      touched_((weights_.size() + 63) / 64),
      sums_(static_cast<std::size_t>(3 * lights.stride())) {}

void LightSum::add(std::int64_t texel, Vec3 throughput) {
  auto const at = static_cast<std::size_t>(texel);
  touched_[at / 64] |= std::uint64_t{1} << (at % 64);
  weights_[at][0] += throughput.x;
  weights_[at][1] += throughput.y;
  weights_[at][2] += throughput.z;
}

float const* LightSum::finish(float scale) {
  std::fill(sums_.begin(), sums_.end(), 0.0F);
  for (std::size_t word = 0; word < touched_.size(); ++word) {
    for (; touched_[word] != 0; touched_[word] &= touched_[word] - 1) {
      auto const texel = word * 64 + static_cast<std::size_t>(std::countr_zero(touched_[word]));
      auto& weight = weights_[texel];
      float const scaled[3] = {weight[0] * scale, weight[1] * scale, weight[2] * scale};
      add_texel(sums_.data(), lights_.texel(static_cast<std::int64_t>(texel)), scaled, lights_.stride());
      weight = {};
    }
  }
  return sums_.data();
}

}  // namespace duoflow::data
