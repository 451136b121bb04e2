#pragma once
// The kinds of procedural light: radiance by direction, up to a factor.

#include <functional>

#include "data/synth/keyed_random.h"

namespace duoflow::data {

using Sky = std::function<Vec3(Vec3 direction)>;

// Unit vector, Z up; radians.
Vec3 from_angles(float elevation, float azimuth);

// ---- light_kinds.cpp ----
// A sun of angular radius 13 to 20 degrees with a soft edge (a small hard disc would need far more samples), a sky that
// fades from horizon to zenith, and ground; colours as no sky has them.
Sky make_sky(KeyedRandom random);
// A key panel that dominates, one to three weaker ones of other colours, and a dim coloured room.
Sky make_area(KeyedRandom random);
// A photographer's set in a dark room: a key softbox, a weaker fill from the other side, one or two rim strips behind, some
// of them with colour gels, and sometimes a lamp overhead. Crisp edges.
Sky make_studio(KeyedRandom random);

// ---- sun_sky.cpp ----
// Clear to hazy daylight: the sky of A. J. Preetham, P. Shirley, B. Smits, "A Practical Analytic Model for Daylight" (SIGGRAPH 1999)
// (Perez luminances and chromaticities by turbidity and the sun's height), the sun as their appendix has it (Rayleigh and
// Angstrom's aerosol extinction along Kasten's air mass), and grey-brown ground that both light. Radiance in kcd/m^2, linear sRGB.
struct SunSky {
  Sky sky;               // without the sun
  Vec3 sun;              // direction
  Vec3 sun_irradiance;   // on a surface that faces it
};
inline constexpr float kSunRadius = 0.2665F;  // degrees
SunSky sun_sky(float sun_elevation, float sun_azimuth, float turbidity, Vec3 ground_albedo);  // radians; turbidity 2 to 10
SunSky make_sun_sky(KeyedRandom random);  // the sun 5 to 70 degrees high

}  // namespace duoflow::data
