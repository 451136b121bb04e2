#include "data/tools/folder_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "data/error.h"
#include "data/tools/float_rows.h"
#include "data/shards/raw_reader.h"

namespace duoflow::data {
namespace {

void add_shard(FolderSummary& summary, ShardInfo const& shard) {
  ++summary.shards;
  summary.bytes += shard.bytes;
  if (!shard.attributes.producer.empty()) ++summary.producers[shard.attributes.producer];
  if (!shard.attributes.note.empty()) ++summary.notes[shard.attributes.note];
  for (auto const& [name, dataset] : shard.datasets) {
    if (dataset.spec.shape.empty()) continue;  // a manifest could say so
    auto& total = summary.datasets[name];
    total.dtype = dataset.spec.dtype;
    total.row_shape.assign(dataset.spec.shape.begin() + 1, dataset.spec.shape.end());
    total.rows += dataset.spec.rows();
    total.bytes += static_cast<std::uint64_t>(dataset.spec.rows()) * dataset.spec.row_bytes();
    total.slow_shards += dataset.raw ? 0 : 1;
  }
}

void extend(std::optional<Extent>& extent, double value) {
  if (!extent) extent = Extent{value, value};
  extent->least = std::min(extent->least, value);
  extent->most = std::max(extent->most, value);
}

void add_cameras(FolderSummary& summary, std::vector<float> const& c2w, std::vector<float> const& fxfycxcy) {
  for (std::size_t at = 0; at + 16 <= c2w.size(); at += 16)
    extend(summary.camera_distance, std::hypot(double{c2w[at + 3]}, double{c2w[at + 7]}, double{c2w[at + 11]}));
  for (std::size_t at = 0; at + 4 <= fxfycxcy.size(); at += 4) {
    double const fx = double{fxfycxcy[at]};
    extend(summary.focal, fx);
    extend(summary.field_of_view,
           2 * std::atan(static_cast<double>(summary.width) / (2 * fx)) * 180 / std::numbers::pi);
  }
}

void add_names(FolderSummary& summary, std::map<std::string, std::set<std::string>> const& lights) {
  std::set<std::string> distinct;
  for (auto const& [object, names] : lights) {
    summary.lights[object].assign(names.begin(), names.end());
    distinct.insert(names.begin(), names.end());
  }
  summary.distinct_lights = std::ssize(distinct);
}

void add_scenes(FolderSummary& summary, ShardIndex const& index) {
  auto const set = load_scenes(index);
  summary.height = set.height, summary.width = set.width;
  summary.env_height = set.env_height, summary.env_width = set.env_width;
  summary.has_alpha = set.has_alpha, summary.env_per_frame = set.env_per_frame;
  summary.units = std::ssize(set.scenes);
  std::map<std::string, std::set<std::string>> lights;
  for (auto const& scene : set.scenes) {
    summary.frames += scene.frame_count;
    lights[scene.object].insert(scene.light);
    add_cameras(summary, scene.c2w, scene.fxfycxcy);
  }
  add_names(summary, lights);
}

void add_rows(FolderSummary& summary, ShardIndex const& index) {
  auto const set = load_pairs(index);
  summary.height = set.height, summary.width = set.width;
  summary.env_height = set.env_height, summary.env_width = set.env_width;
  summary.targets = set.targets, summary.tokens = set.tokens, summary.dim = set.dim;
  summary.has_alpha = set.has_alpha;
  summary.units = std::ssize(set.rows), summary.pairs = std::ssize(set.pairs);
  summary.latent_mean = set.latent_mean, summary.latent_std = set.latent_std;
  std::map<std::string, std::set<std::string>> lights;
  std::set<std::pair<std::string, std::int64_t>> views;
  for (auto const& row : set.rows) {
    lights[row.object].insert(row.light);
    views.insert({row.object, row.view_set});
  }
  summary.view_sets = std::ssize(views);
  add_names(summary, lights);
  RawReader const reader(std::make_shared<ShardIndex const>(index));
  for (std::size_t shard = 0; shard < index.shards().size(); ++shard) {
    auto const rows = index.shards()[shard].datasets.at("target_c2w").spec.rows();
    std::vector<float> c2w(static_cast<std::size_t>(rows * set.targets * 16)),
        k(static_cast<std::size_t>(rows * set.targets * 4));
    reader.read_rows(static_cast<std::int64_t>(shard), "target_c2w", 0, rows, c2w.data());
    reader.read_rows(static_cast<std::int64_t>(shard), "target_fxfycxcy", 0, rows, k.data());
    add_cameras(summary, c2w, k);
  }
}

double median_of(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void find_outliers(LatentSummary& summary, std::vector<double> const& rms, PairSet const& set,
                   ShardIndex const& index) {
  summary.median_rms = median_of(rms);
  std::vector<double> distances;
  for (double const value : rms) distances.push_back(std::abs(value - summary.median_rms));
  double const limit = kOutlierDeviations * 1.4826 * median_of(distances);
  for (std::size_t i = 0; i < rms.size(); ++i) {
    auto const& row = set.rows[i];
    if (distances[i] > limit)
      summary.outliers.push_back(
          {row.object, row.light, index.shards()[static_cast<std::size_t>(row.shard)].file, row.row, rms[i]});
  }
  std::stable_sort(summary.outliers.begin(), summary.outliers.end(), [&](auto const& a, auto const& b) {
    return std::abs(a.rms - summary.median_rms) > std::abs(b.rms - summary.median_rms);
  });
}

}  // namespace

FolderSummary summarise(ShardIndex const& index) {
  FolderSummary summary;
  summary.directory = index.directory();
  summary.kind = index.kind();
  for (auto const& shard : index.shards()) add_shard(summary, shard);
  if (index.kind() == ShardKind::scene)
    add_scenes(summary, index);
  else
    add_rows(summary, index);
  return summary;
}

LatentSummary summarise_latents(ShardIndex const& index) {
  auto const set = load_pairs(index);
  if (set.rows.empty())
    throw DataError(fmt::format("{} has no rows, there is nothing to summarise", index.directory()));
  RawReader const reader(std::make_shared<ShardIndex const>(index));
  LatentSummary summary;
  LatentStatistics statistics(set.dim);
  auto const count = static_cast<std::size_t>(set.tokens * set.dim);
  std::vector<std::byte> bytes(count * byte_size(set.latent_dtype));
  std::vector<double> rms;
  std::optional<Extent> values, rms_extent;
  for (auto const& row : set.rows) {
    reader.read(row.shard, "latents", row.row, bytes.data());
    auto const numbers = widen(set.latent_dtype, bytes.data(), count);
    statistics.add(numbers);
    double squares = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (!std::isfinite(numbers[i]))
        throw DataError(fmt::format("{}/{}: latents row {} number {} is {} ({} under {}), encode that object again",
                                    index.directory(), index.shards()[static_cast<std::size_t>(row.shard)].file,
                                    row.row, i, numbers[i], row.object, row.light));
      squares += double{numbers[i]} * double{numbers[i]};
    }
    auto const [least, most] = std::minmax_element(numbers.begin(), numbers.end());
    extend(values, double{*least});
    extend(values, double{*most});
    rms.push_back(std::sqrt(squares / static_cast<double>(count)));
    extend(rms_extent, rms.back());
  }
  summary.mean = statistics.mean();
  summary.deviation = statistics.deviation();
  summary.values = *values;
  summary.rms = *rms_extent;
  find_outliers(summary, rms, set, index);
  return summary;
}

}  // namespace duoflow::data
