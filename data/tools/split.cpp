#include "data/tools/split.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <cmath>
#include <set>

#include "data/error.h"
#include "data/ingest/ingest_lvsm.h"
#include "data/tools/new_folder.h"
#include "data/tools/shard_copy.h"

namespace duoflow::data {
namespace {

// So that 0.9 + 0.1, or ten tenths, are 1.
constexpr double kRounding = 1e-9;

double place_of(std::string const& name, std::uint64_t seed) {
  return static_cast<double>(XXH3_64bits_withSeed(name.data(), name.size(), seed) >> 11) * 0x1p-53;
}

std::optional<std::size_t> part_of_unit(std::string const& object, std::string const& light,
                                        SplitOptions const& split) {
  auto const by_object = part_of(object, split.seed, split.parts),
             by_light = part_of(base_light(light), split.seed, split.parts);
  if (split.by == SplitBy::object) return by_object;
  if (split.by == SplitBy::light) return by_light;
  return by_object == by_light ? by_object : std::nullopt;
}

void require_part(Content const& content, Part const& part, SplitOptions const& split, std::string const& directory) {
  bool const pairs = content.kind == ShardKind::pair;
  if (!content.units.empty() && (!pairs || !content.pairs.empty())) return;
  throw DataError(fmt::format(
      "{}: part {} of {} gets no {} with seed {} (few names fall unevenly), take another seed, a larger fraction "
      "or more data",
      directory, part.name, part.fraction, content.units.empty() ? (pairs ? "row" : "scene") : "pair", split.seed));
}

}  // namespace

void check_parts(std::vector<Part> const& parts) {
  if (parts.empty()) throw DataError("a split needs parts, name them (for example train=0.9 test=0.1)");
  std::set<std::string> names;
  double sum = 0;
  for (auto const& part : parts) {
    if (part.name.empty() || part.name.find('/') != std::string::npos || part.name.starts_with('.') ||
        !names.insert(part.name).second)
      throw DataError(fmt::format(
          "part \"{}\" cannot be a folder of its own (empty, with a '/', hidden or twice), rename it", part.name));
    if (!(part.fraction > 0) || !std::isfinite(part.fraction))
      throw DataError(
          fmt::format("part {} has fraction {} (a number above 0 is needed), correct it", part.name, part.fraction));
    sum += part.fraction;
  }
  if (sum > 1 + kRounding)
    throw DataError(fmt::format("the parts' fractions sum to {} (at most 1 can be given away), lower them", sum));
}

std::optional<std::size_t> part_of(std::string const& name, std::uint64_t seed, std::vector<Part> const& parts) {
  double const place = place_of(name, seed);
  double end = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    end += parts[i].fraction;
    if (place < end) return i;
  }
  if (end > 1 - kRounding && !parts.empty()) return parts.size() - 1;  // the fractions are 1 but for rounding
  return std::nullopt;
}

std::vector<RewriteReport> split_folder(std::string const& directory, SplitOptions const& split,
                                        RewriteOptions const& options) {
  check_parts(split.parts);
  NewFolder folder(options.out);
  std::vector<DataFolder> sources;
  sources.push_back(open_folder(directory));
  std::vector<Content> contents;
  for (std::size_t part = 0; part < split.parts.size(); ++part) {
    contents.push_back(gather(sources, [&](std::string const& object, std::string const& light) {
      return part_of_unit(object, light, split) == part;
    }));
    require_part(contents.back(), split.parts[part], split, directory);
  }
  std::vector<RewriteReport> reports;
  for (std::size_t part = 0; part < split.parts.size(); ++part) {
    if (options.say) options.say(fmt::format("{}/{}", options.out, split.parts[part].name));
    reports.push_back(write_content(contents[part], folder, split.parts[part].name, options));
  }
  folder.finish();
  return reports;
}

}  // namespace duoflow::data
