#pragma once
// Equirectangular light maps, linear radiance. World: right-handed, Z up. Row 0 looks to +Z, for pixel (j, i) of h x w:
//   theta = pi (j+0.5)/h,  phi = pi - 2 pi (i+0.5)/w,  direction = (sin theta cos phi, sin theta sin phi, cos theta)
// so the map's centre column looks to +X and the left quarter line to +Y (Blender's and Mitsuba-verified convention).

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "data/images/image_io.h"

namespace duoflow::data {

std::array<float, 3> map_direction(std::int64_t row, std::int64_t column, std::int64_t height, std::int64_t width);
// Bilinear look-up towards unit direction d (wraps in azimuth, clamps at the poles).
std::array<float, 3> map_lookup(ImageF const& map, std::array<float, 3> const& direction);
// Area-averaging (solid-angle weighted) resize for shrinking, bilinear for growing.
ImageF resize_map(ImageF const& map, std::int64_t height, std::int64_t width);
// map'(d) = map(rotation * d)
ImageF rotate_map(ImageF const& map, std::array<float, 9> const& rotation);
float mean_luminance(ImageF const& map);  // solid-angle weighted

// The per-frame 8-bit pair of the LVSM family (LDR gamma 1/2.2 clipped at 1; log1p(10x)/max): linear radiance in the
// camera's axes. The unknown scale of the log map is the least-squares fit over pixels where the LDR map is not clipped
// (where none is, the smallest scale at which every clipped value reaches 1).
ImageF recover_linear(Image8 const& ldr, Image8 const& log_map);
struct EncodedMap {
  Image8 ldr, log_map;
};
EncodedMap encode_pair(ImageF const& linear);  // the inverse, truncated to 8 bits as the family's preprocess does
// Camera-frame map (reference convention: forward at column w/4, right at w/2, up at row 0) to the world frame.
ImageF camera_map_to_world(ImageF const& map, float const* c2w, std::int64_t height, std::int64_t width);

std::uint16_t to_half(float value);   // round to nearest even, saturates at 65504; NaN stays NaN
float from_half(std::uint16_t bits);

}  // namespace duoflow::data
