#include <fmt/format.h>

#include "data/tools/float_rows.h"
#include "data/tools/shard_copy.h"

namespace duoflow::data {
namespace {

void write_pair_tables(ShardWriter& writer, std::span<Unit const> units, std::vector<PairEntry> const& pairs,
                       std::vector<std::int64_t> const& env_rows) {
  std::vector<std::string> objects, lights;
  std::vector<std::int64_t> view_sets, joined;
  for (auto const& unit : units) {
    objects.push_back(unit.row().object);
    lights.push_back(unit.row().light);
    view_sets.push_back(unit.row().view_set);
  }
  for (auto const& pair : pairs) joined.insert(joined.end(), {pair.x0, pair.x1});
  writer.write_names("row/object", objects);
  writer.write_names("row/light", lights);
  writer.write("row/view_set", 0, std::ssize(units), view_sets.data());
  writer.write("env_row", 0, std::ssize(units), env_rows.data());
  writer.write("pairs", 0, std::ssize(pairs), joined.data());
}

void copy_latents(ShardWriter& writer, Unit const& unit, std::int64_t row, DType dtype, LatentStatistics& statistics) {
  auto const& form = unit.folder->pairs;
  auto const count = static_cast<std::size_t>(form.tokens * form.dim);
  std::vector<std::byte> bytes(count * byte_size(form.latent_dtype));
  unit.folder->reader->read(unit.row().shard, "latents", unit.row().row, bytes.data());
  auto const& index = *unit.folder->index;
  auto const where = fmt::format("{}/{}: latents row {} ({} under {})", index.directory(),
                                 index.shards()[static_cast<std::size_t>(unit.row().shard)].file, unit.row().row,
                                 unit.row().object, unit.row().light);
  auto numbers = widen(form.latent_dtype, bytes.data(), count);
  if (dtype == form.latent_dtype) {
    require_fitting(dtype, numbers, where);
  } else {
    bytes = narrow(dtype, numbers, where);
    numbers = widen(dtype, bytes.data(), count);  // the statistics are those of what is stored
  }
  writer.write("latents", row, 1, bytes.data());
  statistics.add(numbers);
}

void copy_bytes(ShardWriter& writer, Unit const& unit, std::int64_t row, DatasetSpec const& spec) {
  std::vector<std::byte> bytes(spec.row_bytes());
  unit.folder->reader->read(unit.row().shard, spec.name, unit.row().row, bytes.data());
  writer.write(spec.name, row, 1, bytes.data());
}

bool is_row_data(DatasetSpec const& spec) { return spec.name.starts_with("target_") || spec.name == "world_to_norm"; }

}  // namespace

std::vector<DatasetSpec> pair_datasets(PairSet const& form, DType latent_dtype, std::int64_t rows, std::int64_t pairs,
                                       std::int64_t maps) {
  std::vector<DatasetSpec> specs = {{"latents", latent_dtype, {rows, form.tokens, form.dim}},
                                    {"target_images", DType::u8, {rows, form.targets, form.height, form.width, 3}},
                                    {"target_c2w", DType::f32, {rows, form.targets, 4, 4}},
                                    {"target_fxfycxcy", DType::f32, {rows, form.targets, 4}},
                                    {"world_to_norm", DType::f32, {rows, 4, 4}},
                                    {"env_row", DType::i64, {rows}},
                                    {"env", DType::f16, {maps, form.env_height, form.env_width, 3}},
                                    {"row/object", DType::name, {rows}},
                                    {"row/light", DType::name, {rows}},
                                    {"row/view_set", DType::i64, {rows}},
                                    {"pairs", DType::i64, {pairs, 2}}};
  if (form.has_alpha) specs.push_back({"target_alpha", DType::u8, {rows, form.targets, form.height, form.width}});
  return specs;
}

UnitSize size_of_row(Unit const& unit, DType latent_dtype) {
  UnitSize size;
  for (auto const& spec : pair_datasets(unit.folder->pairs, latent_dtype, 1, 0, 1))
    (spec.name == "env" ? size.light_map : size.own) += spec.row_bytes();
  return size;
}

void write_rows(std::string const& path, std::span<Unit const> units, std::vector<PairEntry> const& pairs,
                DType latent_dtype, Attributes attributes) {
  auto const& form = units.front().folder->pairs;
  LightMaps maps(form.env_height, form.env_width);
  std::vector<std::int64_t> env_rows;
  for (auto const& unit : units) env_rows.push_back(maps.add(*unit.folder, unit.row().shard, unit.row().env_row));
  auto const specs = pair_datasets(form, latent_dtype, std::ssize(units), std::ssize(pairs), maps.count());
  ShardWriter writer(path, ShardKind::pair, specs, attributes);
  write_pair_tables(writer, units, pairs, env_rows);
  maps.write(writer);
  LatentStatistics statistics(form.dim);
  for (std::int64_t row = 0; row < std::ssize(units); ++row) {
    auto const& unit = units[static_cast<std::size_t>(row)];
    copy_latents(writer, unit, row, latent_dtype, statistics);
    for (auto const& spec : specs)
      if (is_row_data(spec)) copy_bytes(writer, unit, row, spec);
  }
  attributes.latent_mean = statistics.mean();
  attributes.latent_std = statistics.deviation();
  writer.set_attributes(attributes);
  writer.close();
}

}  // namespace duoflow::data
