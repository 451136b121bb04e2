#pragma once
// Counter-based random numbers: what is drawn depends on the key (seed, what, index) alone, never on what was drawn before for
// something else. So light 7 of a seed is the same among 8 lights and among 800.

#include <cstdint>
#include <string_view>

#include "data/synth/vec.h"

namespace duoflow::data {

inline std::uint64_t mix_bits(std::uint64_t x) {  // the finaliser of SplitMix64
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

inline std::uint64_t make_key(std::uint64_t seed, std::string_view what, std::uint64_t index) {
  std::uint64_t key = mix_bits(seed);
  for (char const c : what) {
    key = mix_bits(key ^ static_cast<unsigned char>(c));
  }
  return mix_bits(key ^ mix_bits(index));
}

class KeyedRandom {
 public:
  explicit KeyedRandom(std::uint64_t key) : key_(key) {}
  std::uint64_t bits() { return mix_bits(key_ ^ mix_bits(counter_++)); }
  float uniform() { return static_cast<float>(bits() >> 40) * 0x1p-24F; }  // [0, 1)
  float uniform(float from, float to) { return from + (to - from) * uniform(); }
  int below(int count) { return static_cast<int>(bits() % static_cast<std::uint64_t>(count)); }
  Vec3 direction();  // uniform over the sphere

 private:
  std::uint64_t key_, counter_ = 0;
};

inline Vec3 KeyedRandom::direction() {
  float const z = uniform(-1, 1), phi = uniform(0, 6.2831853F), r = std::sqrt(std::max(0.0F, 1 - z * z));
  return {r * std::cos(phi), r * std::sin(phi), z};
}

// Hue in turns, saturation and value in [0, 1].
inline Vec3 colour_of(float hue, float saturation, float value) {
  auto const channel = [&](float offset) {
    float const h = (hue + offset - std::floor(hue + offset)) * 6;
    return value * (1 - saturation * (1 - std::clamp(std::abs(h - 3) - 1, 0.0F, 1.0F)));
  };
  return {channel(0), channel(2.0F / 3), channel(1.0F / 3)};
}

}  // namespace duoflow::data
