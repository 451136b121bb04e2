#pragma once
// PairReader: rows of a pair folder as tensors, for evaluation (not the training path).

#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "data/shards/raw_reader.h"
#include "data/shards/shard_index.h"

namespace duoflow::launch {

class PairReader {
 public:
  PairReader(std::string const& directory, at::Device device);  // DataError when it does not hold pair shards

  data::PairSet const& set() const { return set_; }
  at::Tensor latents(std::int64_t row) const;        // [n,d] fp32
  at::Tensor images(std::int64_t row) const;         // [T,3,H,W] in [0,1]
  at::Tensor mask(std::int64_t row) const;           // [T,H,W] bool, alpha > 0.5; all true where no alpha is stored
  at::Tensor rays(std::int64_t row) const;           // [T,6,H,W]
  at::Tensor env(std::int64_t row) const;            // [h,w,3] fp32 linear
  at::Tensor world_to_norm(std::int64_t row) const;  // [4,4]

 private:
  at::Tensor read(std::int64_t row, char const* dataset, std::int64_t shard_row, at::ScalarType type,
                  std::vector<std::int64_t> const& shape) const;

  at::Device device_;
  std::shared_ptr<data::ShardIndex const> index_;
  data::PairSet set_;
  data::RawReader reader_;
};

}  // namespace duoflow::launch
