#include "data/synth/finish.h"

#include <fmt/format.h>

#include <array>
#include <numbers>

#include "data/error.h"
#include "data/synth/shape.h"

namespace duoflow::data {
namespace {

constexpr float kTurn = 2 * std::numbers::pi_v<float>;
constexpr std::array<std::pair<char const*, Finish>, 4> kNames{
    {{"diffuse", Finish::diffuse}, {"glossy", Finish::glossy}, {"metal", Finish::metal}, {"textured", Finish::textured}}};

// How much of the second colour shows at a point, in [0, 1].
using Pattern = std::function<float(Vec3)>;

float layered_noise(Vec3 p, std::uint64_t key) {
  return (noise(p, key) + 0.5F * noise(p * 2, key + 1) + 0.25F * noise(p * 4, key + 2)) / 1.75F;
}

Pattern make_pattern(KeyedRandom random) {
  std::uint64_t const key = random.bits();
  float const size = random.uniform(3, 7);  // features per unit; an object is 1.4 units long
  Frame const axes(random.direction());
  Vec3 const shift{random.uniform(10, 20), random.uniform(10, 20), random.uniform(10, 20)};
  auto const at = [=](Vec3 p) { return axes.to_local(p) * size + shift; };
  switch (random.below(6)) {
    case 0:
      return [=](Vec3 p) {  // checker
        Vec3 const q = at(p);
        return std::fmod(std::floor(q.x) + std::floor(q.y) + std::floor(q.z), 2.0F) < 1 ? 0.0F : 1.0F;
      };
    case 1: return [=](Vec3 p) { return smooth_step(-0.2F, 0.2F, std::sin(0.7F * kTurn * at(p).z)); };
    case 2:
      return [=](Vec3 p) {  // spots on a cubic lattice, every other one
        Vec3 const q = at(p), cell{std::floor(q.x), std::floor(q.y), std::floor(q.z)};
        float const out = length(q - cell - Vec3{0.5F, 0.5F, 0.5F});
        return std::fmod(cell.x + cell.y + cell.z, 2.0F) < 1 ? 1 - smooth_step(0.4F, 0.46F, out) : 0.0F;
      };
    case 3:
      return [=](Vec3 p) {  // marble
        Vec3 const q = at(p);
        return std::pow(0.5F + 0.5F * std::sin(0.6F * kTurn * q.x + 7 * layered_noise(q * 0.7F, key)), 3.0F);
      };
    case 4:
      return [=](Vec3 p) {  // rings of wood
        Vec3 const q = axes.to_local(p) * size;
        float const ring = 2.2F * std::hypot(q.x, q.y) + 1.5F * noise({q.x, q.y, 0.4F * q.z}, key);
        return smooth_step(0.1F, 0.9F, ring - std::floor(ring));
      };
    default: return [=](Vec3 p) { return smooth_step(0.35F, 0.65F, layered_noise(at(p) * 1.6F, key)); };
  }
}

Vec3 colour_of(Surface const& surface) { return mean(surface.diffuse) > 0 ? surface.diffuse : surface.specular; }

}  // namespace

Finish finish_named(std::string const& name) {
  for (auto const& [known, finish] : kNames) {
    if (name == known) {
      return finish;
    }
  }
  throw DataError(fmt::format("\"{}\" is no material, give some of: diffuse, glossy, metal, textured", name));
}

std::string to_string(Finish finish) {
  return std::find_if(kNames.begin(), kNames.end(), [&](auto const& entry) { return entry.second == finish; })->first;
}

SurfaceAt refinished(SurfaceAt surface, Finish finish, KeyedRandom random) {
  float const roughness = random.uniform(0.2F, 0.55F);
  switch (finish) {
    case Finish::diffuse: return [=](SurfacePoint const& at) { return matte(colour_of(surface(at))); };
    case Finish::glossy: return [=](SurfacePoint const& at) { return plastic(colour_of(surface(at)), roughness); };
    case Finish::metal:
      return [=](SurfacePoint const& at) { return metal(mix(colour_of(surface(at)), {0.9F, 0.9F, 0.9F}, 0.35F), roughness + 0.03F); };
    case Finish::textured: break;
  }
  bool const coated = random.below(2) == 0;
  Vec3 const second = random.below(2) == 0 ? pale(random) : vivid(random, random.uniform()) * 0.5F;
  return [=, pattern = make_pattern(KeyedRandom(random.bits()))](SurfacePoint const& at) {
    Vec3 const colour = mix(colour_of(surface(at)), second, pattern(at.point));
    return coated ? plastic(colour, roughness) : matte(colour);
  };
}

SurfaceAt patches(KeyedRandom random) {
  std::uint64_t const key = random.bits();
  float const hue = random.uniform();
  Surface const first = plastic(vivid(random, hue), 0.4F), second = plastic(random.below(2) == 0 ? pale(random) : vivid(random, hue + 0.5F), 0.5F);
  return [=](SurfacePoint const& at) {
    return mix(first, second, smooth_step(0.44F, 0.56F, layered_noise(at.point * 3 + Vec3{20, 20, 20}, key)));
  };
}

}  // namespace duoflow::data
