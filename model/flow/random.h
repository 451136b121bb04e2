#pragma once
// Counter-based randomness (Philox4x32-10, Salmon et al. 2011): every number is a function of
// (seed, sample position, stream, counter) only, never of the rank or of how many numbers were drawn before.

#include <array>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// Draw from one (position, stream) with uniform01 or with standard_normal, not both: they share the generator's blocks.
enum class Stream : std::uint32_t { time = 0, noise = 1, initialisation = 2, crop = 3, light = 4, sampling = 5 };

// The bare generator: one block of four words.
std::array<std::uint32_t, 4> philox4x32_10(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

// position < 2^56 in all of them (the stream takes the counter block's last eight bits).
// Odd multiples of 2^-53: strictly inside (0,1), symmetric about 1/2, exact in double.
double uniform01(std::uint64_t seed, std::uint64_t position, Stream stream, std::uint64_t counter);
double standard_normal(std::uint64_t seed, std::uint64_t position, Stream stream, std::uint64_t counter);
// fp32 on the CPU; element i (row-major) is standard_normal(seed, position, stream, i) rounded to float.
at::Tensor normal_tensor(std::vector<std::int64_t> const& shape, std::uint64_t seed, std::uint64_t position,
                         Stream stream);

}  // namespace duoflow::model
