#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "data/error.h"
#include "data/shards/latent_statistics.h"
#include "data/parallel.h"
#include "data/shards/shard_index.h"
#include "data/shards/tables.h"

namespace duoflow::data {
namespace {

// Mean and standard deviation of all rows from those of the shards.
class PooledStatistics {
 public:
  void add(ShardInfo const& shard, std::int64_t rows, std::int64_t dim, std::string const& path) {
    if (rows == 0) return;
    auto const& mean = shard.attributes.latent_mean;
    auto const& deviation = shard.attributes.latent_std;
    auto const size = static_cast<std::size_t>(dim);
    if (mean.size() != deviation.size() || (!mean.empty() && mean.size() != size))
      throw DataError(fmt::format("{}: latent_mean has {} numbers and latent_std {} ({} needed, or none), encode again", path, mean.size(),
                                  deviation.size(), dim));
    auto const wrong = std::find_if(deviation.begin(), deviation.end(), [](double x) { return !(x > 0) || !std::isfinite(x); });
    if (wrong != deviation.end() || !std::all_of(mean.begin(), mean.end(), [](double x) { return std::isfinite(x); }))
      throw DataError(fmt::format("{}: latent_mean or latent_std has a number that is none of its kind (a mean is finite, a deviation > 0{}), encode again",
                                  path, wrong != deviation.end() ? fmt::format("; one is {}", *wrong) : ""));
    if (!shards_.empty() && mean.empty() != shards_.front().statistics.mean.empty())
      throw DataError(fmt::format("{} {} latent statistics (the shards before it differ), encode again", path,
                                  mean.empty() ? "has no" : "has"));
    shards_.push_back({static_cast<double>(rows), {mean, deviation}});
  }

  void write(std::vector<float>& mean, std::vector<float>& deviation) const {
    auto const all = pooled(shards_);
    mean = all.mean;
    deviation = all.deviation;
  }

 private:
  std::vector<WeightedStatistics> shards_;
};

// One shard's part of the set: its rows and pairs numbered from 0.
struct ShardPairs {
  PairSet set;
  Common common;
};

// Shapes of one shard into `set`; returns them under their names.
Common read_shapes(Tables const& tables, std::int64_t shard, PairSet& set) {
  auto const& latents = tables.require(shard, "latents", {DType::f32, DType::f16, DType::bf16}, {kAny, kAny, kAny});
  auto const rows = latents.rows();
  auto const& images = tables.require(shard, "target_images", {DType::u8}, {rows, kAny, kAny, kAny, 3});
  auto const& env = tables.require(shard, "env", {DType::f16}, {kAny, kAny, kAny, 3});
  set.latent_dtype = latents.dtype;
  set.tokens = latents.shape[1];
  set.dim = latents.shape[2];
  set.targets = images.shape[1];
  set.height = images.shape[2];
  set.width = images.shape[3];
  set.env_height = env.shape[1];
  set.env_width = env.shape[2];
  set.has_alpha = tables.has(shard, "target_alpha");
  if (set.has_alpha) tables.require(shard, "target_alpha", {DType::u8}, {rows, set.targets, set.height, set.width});
  tables.require(shard, "target_c2w", {DType::f32}, {rows, set.targets, 4, 4});
  tables.require(shard, "target_fxfycxcy", {DType::f32}, {rows, set.targets, 4});
  tables.require(shard, "world_to_norm", {DType::f32}, {rows, 4, 4});
  return {tables.path(shard),
          {{"latent type (number)", static_cast<std::int64_t>(set.latent_dtype)},
           {"tokens", set.tokens},
           {"latent width", set.dim},
           {"target views", set.targets},
           {"image height", set.height},
           {"image width", set.width},
           {"environment map height", set.env_height},
           {"environment map width", set.env_width},
           {"alpha (0 or 1)", set.has_alpha}}};
}

void read_rows(Tables const& tables, std::int64_t shard, PairSet& set) {
  auto const rows = tables.require(shard, "latents", {set.latent_dtype}, {kAny, kAny, kAny}).rows();
  auto const env_rows = tables.require(shard, "env", {DType::f16}, {kAny, kAny, kAny, 3}).rows();
  auto const objects = tables.names(shard, "row/object", rows), lights = tables.names(shard, "row/light", rows);
  auto const view_sets = tables.integers(shard, "row/view_set", {rows}), envs = tables.integers(shard, "env_row", {rows});
  for (std::int64_t row = 0; row < rows; ++row) {
    auto const i = static_cast<std::size_t>(row);
    if (envs[i] < 0 || envs[i] >= env_rows)
      throw DataError(fmt::format("{}: row {} ({} under {}) has env_row {} (the shard has {} maps), encode again", tables.path(shard), row,
                                  objects[i], lights[i], envs[i], env_rows));
    set.rows.push_back({objects[i], lights[i], shard, row, view_sets[i], envs[i]});
  }
}

void read_pairs(Tables const& tables, std::int64_t shard, PairSet& set) {
  auto const pairs = tables.integers(shard, "pairs", {kAny, 2});
  auto const rows = static_cast<std::int64_t>(set.rows.size());
  for (std::size_t i = 0; i + 1 < pairs.size(); i += 2) {
    auto const x0 = pairs[i], x1 = pairs[i + 1];
    if (x0 < 0 || x0 >= rows || x1 < 0 || x1 >= rows)
      throw DataError(fmt::format("{}: pair {} joins rows {} and {} (the shard has {}), encode again", tables.path(shard), i / 2, x0, x1, rows));
    if (x0 == x1)
      throw DataError(fmt::format("{}: pair {} joins row {} to itself (nothing is edited), encode again", tables.path(shard), i / 2, x0));
    auto const& from = set.rows[static_cast<std::size_t>(x0)];
    auto const& to = set.rows[static_cast<std::size_t>(x1)];
    if (from.object != to.object || from.view_set != to.view_set)
      throw DataError(fmt::format("{}: pair {} joins {} (views {}) and {} (views {}): one object and set of views needed, encode again",
                                  tables.path(shard), i / 2, from.object, from.view_set, to.object, to.view_set));
    set.pairs.push_back({x0, x1});
  }
}

ShardPairs read_shard(Tables const& tables, std::int64_t shard) {
  ShardPairs part;
  part.common = read_shapes(tables, shard, part.set);
  read_rows(tables, shard, part.set);
  read_pairs(tables, shard, part.set);
  return part;
}

void append(PairSet& set, PairSet part) {
  auto const first_row = static_cast<std::int64_t>(set.rows.size());
  std::move(part.rows.begin(), part.rows.end(), std::back_inserter(set.rows));
  for (auto const& pair : part.pairs) set.pairs.push_back({first_row + pair.x0, first_row + pair.x1});
}

}  // namespace

PairSet load_pairs(ShardIndex const& index) {
  if (index.kind() != ShardKind::pair)
    throw DataError(fmt::format("{} holds scene shards (pair shards needed here), encode it first (duoflow encode)", index.directory()));
  Tables const tables(index);
  std::vector<ShardPairs> parts(index.shards().size());
  for_each_index(parts.size(), kTableThreads, [&](std::size_t i) { parts[i] = read_shard(tables, static_cast<std::int64_t>(i)); });
  PairSet set;
  std::size_t rows = 0, pairs = 0;
  for (auto const& [part, common] : parts) {
    rows += part.rows.size();
    pairs += part.pairs.size();
  }
  PooledStatistics statistics;
  for (std::size_t shard = 0; shard < parts.size(); ++shard) {
    auto const& info = index.shards()[shard];
    auto& [part, common] = parts[shard];
    if (shard == 0) {
      set = part;
      set.rows.clear();
      set.pairs.clear();
      set.rows.reserve(rows);
      set.pairs.reserve(pairs);
      set.producer = info.attributes.producer;
    }
    require_same(parts.front().common, common);
    if (info.attributes.producer != set.producer)
      throw DataError(fmt::format("{} was encoded by {} ({} by {}: their latents do not mix), encode them again together", common.path,
                                  info.attributes.producer, parts.front().common.path, set.producer));
    statistics.add(info, static_cast<std::int64_t>(part.rows.size()), set.dim, common.path);
    append(set, std::move(part));
  }
  statistics.write(set.latent_mean, set.latent_std);
  return set;
}

}  // namespace duoflow::data
