#pragma once
// Lights at infinity: procedural environment maps of two families (sky: a sun in a coloured sky over ground; area: soft bright
// panels in a dim room), or EXR files. Made to differ strongly: directional, colourful.

#include <cstdint>
#include <string>
#include <vector>

#include "data/image_io.h"

namespace duoflow::data {

// Every map, procedural or read, has this solid-angle mean luminance: a white matte object then comes out near middle grey.
inline constexpr float kMeanLuminance = 0.48F;

// Procedural light `index` of a seed, height x 2 height, scaled, not rounded. Does not depend on any other light.
ImageF procedural_light(std::uint64_t seed, std::int64_t index, std::int64_t height);

// Light k is file k mod files (sorted by name), resized to height x 2 height and scaled; from the second round on turned about the
// vertical axis by a yaw of its own. Small bright sources are widened to a soft disc of about 14 degrees (same power), so that
// they can be rendered without noise. DataError when the folder holds no EXR file.
std::vector<ImageF> file_lights(std::string const& folder, std::uint64_t seed, std::int64_t count, std::int64_t height);

std::string light_name(std::int64_t index);  // env_000, env_001, ...

// [h,w,3] as stored in /env, and the map rounded to those values: what is stored is what was rendered with.
std::vector<std::uint16_t> to_halves(ImageF const& map);
ImageF rounded_to_half(ImageF const& map);

}  // namespace duoflow::data
