#pragma once
// Lights at infinity: procedural environment maps, made to differ strongly (light_kinds.h), or EXR files.

#include <cstdint>
#include <string>
#include <vector>

#include "data/images/image_io.h"

namespace duoflow::data {

// Every map, procedural or read, has this solid-angle mean luminance: a white matte object then comes out near middle grey. (Under
// a bare sun its lit side does not: most of the power comes from one direction, and pictures clip at 1.)
inline constexpr float kMeanLuminance = 0.48F;
ImageF exposed(ImageF map);  // scaled to that; a black map stays black

enum class LightKind { sky, area, sun_sky, studio };
inline std::vector<LightKind> const kSoftLights{LightKind::sky, LightKind::area};
LightKind light_kind(std::string const& name);  // "sky", "area", "sun-sky", "studio"; DataError for another
std::string to_string(LightKind kind);

// Procedural light `index` of a seed, height x 2 height, scaled, not rounded: the kinds take turns. Does not depend on any other light.
// A sun-sky's sun has its true size of half a degree: in a map it is a texel or a few, with the sun's whole power.
ImageF procedural_light(std::uint64_t seed, std::int64_t index, std::int64_t height, std::vector<LightKind> const& kinds = kSoftLights);

// Light k is file k mod files (sorted by name), resized to height x 2 height and scaled; from the second round on turned about the
// vertical axis by a yaw of its own. With soften_degrees > 0 bright sources (beyond 6 times the mean) are widened to a soft disc of
// about that angular radius (same power); 0 keeps them as they are, which takes light directions (path_tracer.h) to
// render without noise. DataError when the folder holds no EXR file.
inline constexpr float kSoftenDegrees = 14;
std::vector<ImageF> file_lights(std::string const& folder, std::uint64_t seed, std::int64_t count, std::int64_t height,
                                float soften_degrees = kSoftenDegrees);

std::string light_name(std::int64_t index);  // env_000, env_001, ...
float texel_solid_angle(std::int64_t height, std::int64_t row);  // of a map height x 2 height

// [h,w,3] as stored in /env, and the map rounded to those values: what is stored is what was rendered with.
std::vector<std::uint16_t> to_halves(ImageF const& map);
ImageF rounded_to_half(ImageF const& map);

}  // namespace duoflow::data
