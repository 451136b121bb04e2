#pragma once
// Counter-based randomness (Philox4x32-10): every number is a function of (seed, sample position, stream, counter) only,
// never of the rank or of how many numbers were drawn before.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

enum class Stream : std::uint32_t { time = 0, noise = 1, initialisation = 2 };

double uniform01(std::uint64_t seed, std::uint64_t position, Stream stream, std::uint64_t counter);  // (0,1), 53 bits
double standard_normal(std::uint64_t seed, std::uint64_t position, Stream stream, std::uint64_t counter);
at::Tensor normal_tensor(std::vector<std::int64_t> const& shape, std::uint64_t seed, std::uint64_t position, Stream stream);  // fp32 CPU

}  // namespace duoflow::model
