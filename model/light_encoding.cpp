#include "model/light_encoding.h"

#include <array>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::model {
namespace {

// Unit directions of an h x w map, [3,h,w]; the convention is data/images/environment_map.h's. In fp64, since phi ends at pi.
at::Tensor map_directions(std::int64_t height, std::int64_t width, at::Device device) {
  auto const options = at::TensorOptions(at::kDouble).device(device);
  at::Tensor const theta = ((at::arange(height, options) + 0.5) * (std::numbers::pi / static_cast<double>(height))).unsqueeze(1);
  at::Tensor const phi = (std::numbers::pi - (at::arange(width, options) + 0.5) * (2 * std::numbers::pi / static_cast<double>(width))).unsqueeze(0);
  return at::stack({theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos().expand({height, width})});
}

// Directions in the normalised frame, [B,3,h,w]. world_to_norm is a similarity: the unit length takes its scale away.
at::Tensor normalised_directions(at::Tensor const& world_to_norm, std::int64_t height, std::int64_t width) {
  at::Tensor const pose = world_to_norm.to(at::kDouble);
  at::Tensor const world = map_directions(height, width, pose.device());
  auto const column = [&](std::int64_t i) { return pose.narrow(1, 0, 3).select(2, i).unsqueeze(-1).unsqueeze(-1); };
  at::Tensor const turned = column(0) * world[0] + column(1) * world[1] + column(2) * world[2];
  return (turned / at::sqrt(at::sum(turned * turned, 1, true))).to(at::kFloat);
}

at::Tensor srgb(at::Tensor const& linear) {  // IEC 61966-2-1
  return at::where(linear <= 0.0031308, 12.92 * linear, 1.055 * at::pow(linear.clamp_min(0.0031308), 1 / 2.4) - 0.055);
}

std::pair<at::Tensor, at::Tensor> ldr_and_log(at::Tensor const& radiance, LightEncoding encoding) {
  switch (encoding) {
    case LightEncoding::lvsm: {
      at::Tensor const log = at::log1p(10 * radiance);
      return {at::pow(radiance.clamp(0, 1), 1 / 2.2), log / at::amax(log, {1, 2, 3}, true).clamp_min(1e-8)};  // a black map stays black
    }
    case LightEncoding::cosmos: {
      constexpr double kWhite = 16, kLogCeiling = 10000;  // Cosmos DiffusionRenderer's
      at::Tensor const tone_mapped = radiance * (1 + radiance / (kWhite * kWhite)) / (1 + radiance);
      return {srgb(tone_mapped.clamp(0, 1)), srgb((at::log1p(radiance) / std::log1p(kLogCeiling)).clamp(0, 1))};
    }
    case LightEncoding::raw: break;
  }
  return {radiance, at::log1p(radiance)};
}

}  // namespace

LightEncoding light_encoding_from_string(std::string const& name) {
  if (name == "lvsm") return LightEncoding::lvsm;
  if (name == "cosmos") return LightEncoding::cosmos;
  if (name == "raw") return LightEncoding::raw;
  throw std::invalid_argument(fmt::format("unknown light encoding '{}', use one of lvsm, cosmos, raw", name));
}

at::Tensor encode_light(at::Tensor const& env_hdr, at::Tensor const& world_to_norm, LightEncoding encoding) {
  at::Tensor const radiance = env_hdr.to(at::kFloat).permute({0, 3, 1, 2}).clamp_min(0);  // filters leave negative pixels in EXR files
  auto const [ldr, log] = ldr_and_log(radiance, encoding);
  at::Tensor const direction = normalised_directions(world_to_norm, radiance.size(2), radiance.size(3));
  return at::cat({ldr, log, direction.expand_as(radiance)}, 1).unsqueeze(1);
}

}  // namespace duoflow::model
