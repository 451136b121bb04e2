#include "launch/pair_reader.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "data/error.h"
#include "launch/batches.h"
#include "model/rays.h"

namespace duoflow::launch {
namespace {

std::shared_ptr<data::ShardIndex const> open_pairs(std::string const& directory) {
  auto index = std::make_shared<data::ShardIndex const>(directory);
  if (index->kind() != data::ShardKind::pair)
    throw data::DataError(
        fmt::format("{} holds scene shards, pair shards are needed; make them with `duoflow encode`", directory));
  return index;
}

}  // namespace

PairReader::PairReader(std::string const& directory, at::Device device)
    : device_(device), index_(open_pairs(directory)), set_(data::load_pairs(*index_)), reader_(index_) {}

at::Tensor PairReader::read(std::int64_t row, char const* dataset, std::int64_t shard_row, at::ScalarType type,
                            std::vector<std::int64_t> const& shape) const {
  auto tensor = at::empty(shape, type);
  reader_.read(set_.rows[static_cast<std::size_t>(row)].shard, dataset, shard_row, tensor.mutable_data_ptr());
  return tensor;
}

at::Tensor PairReader::latents(std::int64_t row) const {
  auto const type = set_.latent_dtype == data::DType::bf16  ? at::kBFloat16
                    : set_.latent_dtype == data::DType::f16 ? at::kHalf
                                                            : at::kFloat;
  return read(row, "latents", set_.rows[static_cast<std::size_t>(row)].row, type, {set_.tokens, set_.dim})
      .to(device_, at::kFloat);
}

at::Tensor PairReader::images(std::int64_t row) const {
  return image_tensor(read(row, "target_images", set_.rows[static_cast<std::size_t>(row)].row, at::kByte,
                           {set_.targets, set_.height, set_.width, 3}),
                      device_);
}

at::Tensor PairReader::mask(std::int64_t row) const {
  if (!set_.has_alpha) return {};
  return (read(row, "target_alpha", set_.rows[static_cast<std::size_t>(row)].row, at::kByte,
               {set_.targets, set_.height, set_.width}) > 127)
      .to(device_);
}

at::Tensor PairReader::rays(std::int64_t row) const {
  auto const shard_row = set_.rows[static_cast<std::size_t>(row)].row;
  auto const c2w = read(row, "target_c2w", shard_row, at::kFloat, {1, set_.targets, 4, 4}).to(device_);
  auto const fxfycxcy = read(row, "target_fxfycxcy", shard_row, at::kFloat, {1, set_.targets, 4}).to(device_);
  return model::pluecker_rays(c2w, fxfycxcy, set_.height, set_.width)[0];
}

at::Tensor PairReader::env(std::int64_t row) const {
  return read(row, "env", set_.rows[static_cast<std::size_t>(row)].env_row, at::kHalf,
              {set_.env_height, set_.env_width, 3})
      .to(device_, at::kFloat);
}

at::Tensor PairReader::world_to_norm(std::int64_t row) const {
  return read(row, "world_to_norm", set_.rows[static_cast<std::size_t>(row)].row, at::kFloat, {4, 4}).to(device_);
}

}  // namespace duoflow::launch
