#include "data/synth/light_directions.h"

#include <numbers>

namespace duoflow::data {
namespace {

constexpr float kPi = std::numbers::pi_v<float>;

float luminance(float r, float g, float b) { return 0.2126F * r + 0.7152F * g + 0.0722F * b; }

// Index of the interval of sums[0..count) that `at` of [0, sums[count-1]) falls into, and its place in it, in [0, 1).
struct Found {
  std::int64_t index;
  float place;
};
Found find(float const* sums, std::int64_t count, float at) {
  float const scaled = at * sums[count - 1];
  std::int64_t const index = std::min<std::int64_t>(std::upper_bound(sums, sums + count, scaled) - sums, count - 1);
  float const before = index == 0 ? 0 : sums[index - 1], width = sums[index] - before;
  return {index, width > 0 ? std::clamp((scaled - before) / width, 0.0F, 0x1.fffffep-1F) : 0.5F};
}

}  // namespace

LightDirections::LightDirections(LightTable const& lights)
    : height_(lights.height()),
      width_(lights.width()),
      density_(static_cast<std::size_t>(height_ * width_)),
      rows_(static_cast<std::size_t>(height_)),
      texels_(density_.size()) {
  std::vector<double> solid_angle(rows_.size()), mean(static_cast<std::size_t>(lights.lights()));
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    double const from = std::numbers::pi * static_cast<double>(row) / static_cast<double>(height_);
    double const to = std::numbers::pi * static_cast<double>(row + 1) / static_cast<double>(height_);
    solid_angle[row] = (std::cos(from) - std::cos(to)) * 2 * std::numbers::pi / static_cast<double>(width_);
  }
  auto const of_light = [&](std::int64_t texel, std::int64_t light) {
    float const* const c = lights.texel(texel) + light;
    return static_cast<double>(luminance(c[0], c[lights.stride()], c[2 * lights.stride()]));
  };
  std::int64_t const texels = height_ * width_;
  for (std::int64_t t = 0; t < texels; ++t) {
    for (std::int64_t l = 0; l < lights.lights(); ++l) {
      mean[static_cast<std::size_t>(l)] += of_light(t, l) * solid_angle[static_cast<std::size_t>(t / width_)] / (4 * std::numbers::pi);
    }
  }
  double total = 0;
  std::vector<double> share(density_.size());
  for (std::int64_t t = 0; t < texels; ++t) {
    double squares = 0;
    for (std::int64_t l = 0; l < lights.lights(); ++l) {
      double const m = mean[static_cast<std::size_t>(l)], relative = m > 0 ? of_light(t, l) / m : 0;
      squares += relative * relative;
    }
    // Weighed with the reflection's own directions, a texel that is never drawn here is no error.
    share[static_cast<std::size_t>(t)] = std::sqrt(squares) * solid_angle[static_cast<std::size_t>(t / width_)];
    total += share[static_cast<std::size_t>(t)];
  }
  double rows = 0;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    double within = 0;
    for (std::size_t t = row * static_cast<std::size_t>(width_); t < (row + 1) * static_cast<std::size_t>(width_); ++t) {
      double const probability = total > 0 ? share[t] / total : solid_angle[row] / (4 * std::numbers::pi);
      density_[t] = static_cast<float>(probability / solid_angle[row]);
      within += probability;
      texels_[t] = static_cast<float>(within);
    }
    rows += within;
    rows_[row] = static_cast<float>(rows);
  }
}

LightDirections::Drawn LightDirections::draw(Point2 sample) const {
  Found const row = find(rows_.data(), height_, sample.y);
  Found const column = find(&texels_[static_cast<std::size_t>(row.index * width_)], width_, sample.x);
  float const from = std::cos(kPi * static_cast<float>(row.index) / static_cast<float>(height_));
  float const to = std::cos(kPi * static_cast<float>(row.index + 1) / static_cast<float>(height_));
  float const z = from + (to - from) * row.place, r = std::sqrt(std::max(0.0F, 1 - z * z));
  float const phi = kPi - 2 * kPi * (static_cast<float>(column.index) + column.place) / static_cast<float>(width_);
  std::int64_t const texel = row.index * width_ + column.index;
  return {{r * std::cos(phi), r * std::sin(phi), z}, texel, density(texel)};
}

}  // namespace duoflow::data
