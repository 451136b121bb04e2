#include <fmt/format.h>

#include <cstring>
#include <numeric>
#include <utility>

#include "data/error.h"
#include "data/loading/loader.h"
#include "data/order/view_draw.h"

namespace duoflow::data {
namespace {

class PairSource : public BatchSource {
 public:
  PairSource(std::shared_ptr<ShardIndex const> index, std::shared_ptr<PairSet const> pairs, std::shared_ptr<RawReader const> reader,
             Sampler sampler, std::uint64_t seed, std::int64_t targets)
      : index_(std::move(index)), pairs_(std::move(pairs)), reader_(std::move(reader)), sampler_(sampler), seed_(seed) {
    auto const& set = *pairs_;
    if (sampler_.size() != set.pairs.size())
      throw DataError(fmt::format("{}: the sampler orders {} samples (the folder has {} pairs), make it for that number",
                                  index_->directory(), sampler_.size(), set.pairs.size()));
    if (targets < 0 || targets > set.targets)
      throw DataError(fmt::format("{}: {} target views asked for (its rows have {}), ask for fewer or encode with more",
                                  index_->directory(), targets, set.targets));
    views_ = targets == 0 ? set.targets : targets;
    fields_ = {{"x0", set.latent_dtype, {set.tokens, set.dim}},
               {"x1", set.latent_dtype, {set.tokens, set.dim}},
               {"target_images", DType::u8, {views_, set.height, set.width, 3}},
               {"target_alpha", DType::u8, {views_, set.height, set.width}},
               {"target_c2w", DType::f32, {views_, 4, 4}},
               {"target_fxfycxcy", DType::f32, {views_, 4}},
               {"env", DType::f16, {set.env_height, set.env_width, 3}},
               {"world_to_norm", DType::f32, {4, 4}},
               {"pair", DType::i64, {1}}};
  }

  std::vector<Field> const& fields() const override { return fields_; }

  void fill(std::uint64_t position, std::vector<std::byte*> const& out) const override {
    auto const number = sampler_.index_at(position);
    auto const& pair = pairs_->pairs[number];
    auto const& from = pairs_->rows[static_cast<std::size_t>(pair.x0)];
    auto const& to = pairs_->rows[static_cast<std::size_t>(pair.x1)];
    auto const views = choose_views(position);
    reader_->read(from.shard, "latents", from.row, out[0]);
    reader_->read(to.shard, "latents", to.row, out[1]);
    read_views(to, "target_images", views, 2, out);
    if (pairs_->has_alpha)
      read_views(to, "target_alpha", views, 3, out);
    else
      std::memset(out[3], 255, fields_[3].bytes_per_sample());
    read_views(to, "target_c2w", views, 4, out);
    read_views(to, "target_fxfycxcy", views, 5, out);
    reader_->read(to.shard, "env", to.env_row, out[6]);
    reader_->read(to.shard, "world_to_norm", to.row, out[7]);
    auto const identity = static_cast<std::int64_t>(number);
    std::memcpy(out[8], &identity, sizeof(identity));
  }

 private:
  // Empty: all of them, in order.
  std::vector<std::int64_t> choose_views(std::uint64_t position) const {
    if (views_ == pairs_->targets) return {};
    std::vector<std::int64_t> all(static_cast<std::size_t>(pairs_->targets));
    std::iota(all.begin(), all.end(), std::int64_t{0});
    return draw_distinct(std::move(all), views_, seed_, position, ViewStream::pair_targets);
  }

  void read_views(RowEntry const& row, char const* dataset, std::vector<std::int64_t> const& views, std::size_t field,
                  std::vector<std::byte*> const& out) const {
    if (views.empty()) return reader_->read(row.shard, dataset, row.row, out[field]);
    auto const bytes = fields_[field].bytes_per_sample() / views.size();
    for (std::size_t i = 0; i < views.size(); ++i)
      reader_->read_part(row.shard, dataset, row.row, static_cast<std::size_t>(views[i]) * bytes, bytes, out[field] + i * bytes);
  }

  std::shared_ptr<ShardIndex const> index_;
  std::shared_ptr<PairSet const> pairs_;
  std::shared_ptr<RawReader const> reader_;
  Sampler sampler_;
  std::uint64_t seed_;
  std::int64_t views_ = 0;
  std::vector<Field> fields_;
};

}  // namespace

std::shared_ptr<BatchSource const> make_pair_source(std::shared_ptr<ShardIndex const> index, std::shared_ptr<PairSet const> pairs,
                                                    std::shared_ptr<RawReader const> reader, Sampler sampler, std::uint64_t seed,
                                                    std::int64_t targets) {
  return std::make_shared<PairSource const>(std::move(index), std::move(pairs), std::move(reader), sampler, seed, targets);
}

}  // namespace duoflow::data
