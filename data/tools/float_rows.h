#pragma once
// The float types of latents, row by row: widened exactly, narrowed to nearest with ties to even. Here, not in HDF5,
// whose converter rounds half up. Private to data/.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "data/shards/shard_schema.h"

namespace duoflow::data {

float from_bf16(std::uint16_t bits);
std::uint16_t to_bf16(float value);  // an infinity where the nearest is one

// `count` numbers of type f32, f16 or bf16; every one of them is exact as a float. DataError for another type.
std::vector<float> widen(DType from, std::byte const* numbers, std::size_t count);
// DataError beginning with `where` and naming the first number that is not finite or beyond the largest of `to`.
void require_fitting(DType to, std::vector<float> const& numbers, std::string const& where);
// The reverse of widen, rounding, for numbers that fit (DataError as above). Bytes that came from `to` come back as
// they were.
std::vector<std::byte> narrow(DType to, std::vector<float> const& numbers, std::string const& where);

// Per-channel mean and standard deviation (of the population) of rows [n,d], in the order they are added.
class LatentStatistics {
 public:
  explicit LatentStatistics(std::int64_t dim);
  void add(std::vector<float> const& row);  // n x d numbers
  std::vector<float> mean() const;          // empty before the first row
  std::vector<float> deviation() const;     // at least 1e-6, as encode has it: it is divided by

 private:
  std::vector<double> pivot_, sum_, squares_;  // about the first token: no cancellation when the mean is far from 0
  double tokens_ = 0;
};

}  // namespace duoflow::data
