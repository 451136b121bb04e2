#include "data/file.h"
#include "data/tools/shard_copy.h"

namespace duoflow::data {

std::vector<std::uint16_t> LightMaps::read(Source const& source) const {
  auto const& [folder, shard, row] = source;
  std::vector<std::uint16_t> half(static_cast<std::size_t>(height_ * width_ * 3));
  folder->reader->read(shard, "env", row, half.data());
  return half;
}

std::int64_t LightMaps::add(DataFolder const& folder, std::int64_t shard, std::int64_t env_row) {
  Source const source{&folder, shard, env_row};
  auto const [place, is_new] = known_.try_emplace(source, 0);
  if (!is_new) return place->second;
  auto const half = read(source);
  auto const [same, first] = by_hash_.try_emplace(xxh3_hex(half.data(), half.size() * sizeof(half[0])), count());
  if (first) sources_.push_back(source);
  return place->second = same->second;
}

void LightMaps::write(ShardWriter& writer) const {
  for (std::int64_t row = 0; row < count(); ++row)
    writer.write("env", row, 1, read(sources_[static_cast<std::size_t>(row)]).data());
}

}  // namespace duoflow::data
