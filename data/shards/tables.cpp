#include "data/shards/tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "data/error.h"

namespace duoflow::data {
namespace {

bool matches(std::vector<std::int64_t> const& shape, std::vector<std::int64_t> const& wanted) {
  return std::equal(shape.begin(), shape.end(), wanted.begin(), wanted.end(),
                    [](std::int64_t size, std::int64_t want) { return want == kAny || size == want; });
}

std::string types_text(std::vector<DType> const& dtypes) {
  std::string text;
  for (auto const dtype : dtypes) text += (text.empty() ? "" : " or ") + to_string(dtype);
  return text;
}

template <class T>
std::vector<T> whole(RawReader const& reader, std::int64_t shard, DatasetSpec const& spec) {
  std::vector<T> values(static_cast<std::size_t>(spec.rows()) * spec.row_bytes() / sizeof(T));
  reader.read_rows(shard, spec.name, 0, spec.rows(), values.data());
  return values;
}

}  // namespace

// The reader shares the caller's index without owning it.
Tables::Tables(ShardIndex const& index)
    : index_(index), reader_(std::shared_ptr<ShardIndex const>(std::shared_ptr<void>(), &index), Verify::always) {}

std::string Tables::path(std::int64_t shard) const {
  return index_.directory() + "/" + index_.shards().at(static_cast<std::size_t>(shard)).file;
}

bool Tables::has(std::int64_t shard, std::string const& dataset) const {
  return index_.shards().at(static_cast<std::size_t>(shard)).datasets.count(dataset) != 0;
}

DatasetSpec const& Tables::require(std::int64_t shard, std::string const& dataset, std::vector<DType> const& dtypes,
                                   std::vector<std::int64_t> const& shape) const {
  auto const& datasets = index_.shards().at(static_cast<std::size_t>(shard)).datasets;
  auto const found = datasets.find(dataset);
  if (found == datasets.end())
    throw DataError(fmt::format("{} has no dataset {} (a {} shard needs it), make the shard again", path(shard), dataset,
                                to_string(index_.kind())));
  auto const& spec = found->second.spec;
  if (std::find(dtypes.begin(), dtypes.end(), spec.dtype) == dtypes.end() || !matches(spec.shape, shape))
    throw DataError(fmt::format("{}: dataset {} is {} [{}] ({} [{}] needed, -1 standing for any size), make the shard again", path(shard),
                                dataset, to_string(spec.dtype), fmt::join(spec.shape, ","), types_text(dtypes), fmt::join(shape, ",")));
  return spec;
}

std::vector<std::int64_t> Tables::integers(std::int64_t shard, std::string const& dataset, std::vector<std::int64_t> const& shape) const {
  return whole<std::int64_t>(reader_, shard, require(shard, dataset, {DType::i64}, shape));
}

std::vector<float> Tables::floats(std::int64_t shard, std::string const& dataset, std::vector<std::int64_t> const& shape) const {
  return whole<float>(reader_, shard, require(shard, dataset, {DType::f32}, shape));
}

std::vector<std::string> Tables::names(std::int64_t shard, std::string const& dataset, std::int64_t rows) const {
  auto const bytes = whole<char>(reader_, shard, require(shard, dataset, {DType::name}, {rows}));
  std::vector<std::string> result;
  for (std::size_t begin = 0; begin < bytes.size(); begin += kNameBytes)
    result.emplace_back(bytes.data() + begin, strnlen(bytes.data() + begin, kNameBytes));
  return result;
}

void require_same(Common const& first, Common const& other) {
  for (std::size_t i = 0; i < first.values.size(); ++i)
    if (first.values[i].second != other.values[i].second)
      throw DataError(fmt::format("{} has {} {} ({} has {}: one folder holds one form), make the shards again alike or keep them apart",
                                  other.path, first.values[i].first, other.values[i].second, first.path, first.values[i].second));
}

}  // namespace duoflow::data
