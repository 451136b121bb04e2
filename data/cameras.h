#pragma once
// Cameras: OpenCV axes (x right, y down, z forward), pixel coordinates with integer corners (pixel i's centre is i+0.5).

#include <cstdint>
#include <string>
#include <vector>

namespace duoflow::data {

// LVSM's normalisation over the given views (c2w: views x 16, row-major): the mean camera frame (mean centre, mean forward,
// mean down orthonormalised) becomes the origin, then translations are divided by 1.35 * max |t|.
// Returns world_to_norm (4x4, a similarity: rotation, translation, uniform scale on the translation part only, see below):
// normalised c2w = [R', s t'] with [R' t'] = inverse(mean frame) * c2w and s = 1 / (1.35 max |t'|).
struct Normalisation {
  float rigid[16];  // inverse of the mean camera frame
  float scale = 1;
};
// All views in one place (a single view): scale 1. DataError when the views have no mean direction (they face each other).
Normalisation normalise_over(std::vector<float> const& c2w);
// Which views set that frame: the inputs, and where `targets_too` (the LVSM family's way) the targets that are none of
// them.
std::vector<std::int64_t> views_of_frame(std::vector<std::int64_t> const& inputs,
                                         std::vector<std::int64_t> const& targets, bool targets_too);
// Called as data::apply: argument-dependent look-up would find std::apply too.
std::vector<float> apply(Normalisation const& normalisation, std::vector<float> const& c2w);
// 4x4 acting on points: scale * (rigid * p).
std::vector<float> world_to_norm(Normalisation const& normalisation);
Normalisation from_world_to_norm(float const* world_to_norm);
// "" or why these 16 numbers are no such matrix: finite, the last row 0 0 0 1, a rotation times one positive scale (within 1e-3).
std::string world_to_norm_problem(float const* world_to_norm);

// "" when c2w (16 floats) is a rigid motion with det +1 and fxfycxcy is a camera inside a height x width picture, else why not.
std::string camera_problem(float const* c2w, float const* fxfycxcy, long height, long width);

}  // namespace duoflow::data
