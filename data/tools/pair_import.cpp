#include "data/tools/pair_import.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "data/error.h"
#include "data/file.h"
#include "data/tools/float_rows.h"
#include "data/tools/new_folder.h"
#include "data/tools/plain_pairs.h"
#include "data/tools/shard_copy.h"
#include "data/shards/tables.h"

namespace duoflow::data {
namespace {

Common common_form(std::string const& path, PlainForm const& form) {
  auto const& s = form.sizes;
  return {path,
          {{"tokens", s.tokens},
           {"latent width", s.dim},
           {"latents of type (number)", static_cast<std::int64_t>(s.latent_dtype)},
           {"target views", s.targets},
           {"image height", s.height},
           {"image width", s.width},
           {"environment map height", s.env_height},
           {"environment map width", s.env_width},
           {"alpha (0 or 1)", s.has_alpha},
           {"environment maps (0 or 1)", form.has_env}}};
}

// All sources looked at once, nothing of the numbers.
struct Survey {
  PlainForm form;
  std::vector<std::int64_t> pairs;  // of each source
  std::int64_t total = 0;
  std::set<std::string> left_behind;
};

Survey survey(std::vector<PlainSource> const& sources, std::int64_t latents_only) {
  Survey result;
  std::optional<Common> first;
  for (auto const& source : sources) {
    PlainPairs const pairs(source, latents_only);
    if (!first) {
      result.form = pairs.form();
      first = common_form(source.path, result.form);
    }
    require_same(*first, common_form(source.path, pairs.form()));
    result.pairs.push_back(pairs.pairs());
    result.total += pairs.pairs();
    for (auto const& name : pairs.left_behind()) result.left_behind.insert(name);
  }
  if (result.total == 0) throw DataError("there is no pair to import (x0 has no rows), name other files");
  return result;
}

// Walks the pairs of all sources in order, with one source open at a time.
class PairWalk {
 public:
  PairWalk(std::vector<PlainSource> const& sources, Survey const& survey, std::int64_t latents_only)
      : sources_(sources), survey_(survey), latents_only_(latents_only) {}

  // The source that holds pair `number` (never before an earlier call's) and its row there.
  std::pair<PlainPairs const&, std::int64_t> at(std::int64_t number) {
    while (number >= first_ + survey_.pairs[source_]) {
      first_ += survey_.pairs[source_++];
      open_.reset();
    }
    if (!open_) open_.emplace(sources_[source_], latents_only_);
    if (open_->pairs() != survey_.pairs[source_])
      throw DataError(fmt::format("{} has changed while it was read, import again", sources_[source_].path));
    return {*open_, number - first_};
  }

 private:
  std::vector<PlainSource> const& sources_;
  Survey const& survey_;
  std::int64_t latents_only_;
  std::size_t source_ = 0;
  std::int64_t first_ = 0;
  std::optional<PlainPairs> open_;
};

class PairShards {
 public:
  PairShards(std::vector<PlainSource> const& sources, Survey const& found, PairImportOptions const& options)
      : sources_(sources),
        survey_(found),
        form_(found.form.sizes),
        options_(options),
        dtype_(options.latent_dtype.value_or(form_.latent_dtype)) {
    for (auto const& spec : pair_datasets(form_, dtype_, 2, 1, 1))
      pair_bytes_ += spec.row_bytes() * static_cast<std::size_t>(spec.rows());
  }

  std::int64_t per_shard() const {
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(options_.shard_bytes / pair_bytes_));
  }
  std::uint64_t least_bytes() const {  // maps may be shared
    auto const map = static_cast<std::uint64_t>(form_.env_height * form_.env_width * 6);
    return static_cast<std::uint64_t>(survey_.total) * (pair_bytes_ - map);
  }
  DType dtype() const { return dtype_; }

  void write(std::string const& path, std::int64_t first, std::int64_t pairs) const {
    Attributes attributes{options_.producer, {}, {}, note()};
    auto const maps = map_rows(first, pairs);
    ShardWriter writer(path, ShardKind::pair, pair_datasets(form_, dtype_, 2 * pairs, pairs, maps.count), attributes);
    write_tables(writer, first, pairs, maps.env_row);
    LatentStatistics statistics(form_.dim);
    PairWalk walk(sources_, survey_, options_.latents_only);
    std::vector<std::uint16_t> const black(static_cast<std::size_t>(form_.env_height * form_.env_width * 3), 0);
    writer.write("env", 0, 1, black.data());
    std::int64_t written = 1;
    for (std::int64_t i = 0; i < pairs; ++i) {
      auto const [source, row] = walk.at(first + i);
      write_row(writer, source, row, 2 * i, "x0", statistics);
      write_row(writer, source, row, 2 * i + 1, "x1", statistics);
      if (maps.env_row[static_cast<std::size_t>(2 * i + 1)] == written)
        writer.write("env", written++, 1, source.env(row).data());
    }
    attributes.latent_mean = statistics.mean();
    attributes.latent_std = statistics.deviation();
    writer.set_attributes(attributes);
    writer.close();
  }

 private:
  struct MapRows {
    std::vector<std::int64_t> env_row;  // of each row
    std::int64_t count = 1;             // the black one first
  };

  // Equal maps are stored once: numbered in the order of their first use.
  MapRows map_rows(std::int64_t first, std::int64_t pairs) const {
    MapRows maps;
    std::map<std::string, std::int64_t> known;
    PairWalk walk(sources_, survey_, options_.latents_only);
    for (std::int64_t i = 0; i < pairs; ++i) {
      auto const [source, row] = walk.at(first + i);
      auto const half = source.env(row);
      bool const black = std::all_of(half.begin(), half.end(), [](std::uint16_t x) { return x == 0; });
      auto const [place, is_new] =
          known.try_emplace(xxh3_hex(half.data(), half.size() * sizeof(half[0])), black ? 0 : maps.count);
      if (is_new && !black) ++maps.count;
      maps.env_row.insert(maps.env_row.end(), {0, place->second});
    }
    return maps;
  }

  void write_tables(ShardWriter& writer, std::int64_t first, std::int64_t pairs,
                    std::vector<std::int64_t> const& env_rows) const {
    std::vector<std::string> objects, lights;
    std::vector<std::int64_t> view_sets, joined;
    for (std::int64_t i = 0; i < pairs; ++i) {
      auto const name = name_of(first + i);
      objects.insert(objects.end(), {name.object, name.object});
      lights.insert(lights.end(), {name.light_x0, name.light_x1});
      view_sets.insert(view_sets.end(), {first + i, first + i});
      joined.insert(joined.end(), {2 * i, 2 * i + 1});
    }
    writer.write_names("row/object", objects);
    writer.write_names("row/light", lights);
    writer.write("row/view_set", 0, 2 * pairs, view_sets.data());
    writer.write("env_row", 0, 2 * pairs, env_rows.data());
    writer.write("pairs", 0, pairs, joined.data());
  }

  void write_row(ShardWriter& writer, PlainPairs const& source, std::int64_t pair, std::int64_t row, char const* end,
                 LatentStatistics& statistics) const {
    auto const latents = source.latents(end, pair, dtype_);
    writer.write("latents", row, 1, latents.data());
    statistics.add(widen(dtype_, latents.data(), static_cast<std::size_t>(form_.tokens * form_.dim)));
    writer.write("target_c2w", row, 1, source.cameras(pair).data());
    writer.write("target_fxfycxcy", row, 1, source.intrinsics(pair).data());
    writer.write("world_to_norm", row, 1, source.world_to_norm(pair).data());
    bool const pictured = options_.latents_only == 0 && std::string_view(end) == "x1";
    std::vector<std::uint8_t> const black(static_cast<std::size_t>(form_.targets * form_.height * form_.width * 3), 0);
    writer.write("target_images", row, 1, pictured ? source.bytes("target_images", pair).data() : black.data());
    if (form_.has_alpha)
      writer.write("target_alpha", row, 1, pictured ? source.bytes("target_alpha", pair).data() : black.data());
  }

  PairName name_of(std::int64_t pair) const {
    if (!options_.names.empty()) return options_.names[static_cast<std::size_t>(pair)];
    return {fmt::format("{}-{:06d}", options_.object_prefix, pair), "x0", "x1"};
  }

  std::string note() const {
    return options_.latents_only > 0
               ? "duoflow import; latents only: pictures and cameras are placeholders, train with render_loss_weight 0"
               : "duoflow import; rows that are x0 have black pictures and a black map";
  }

  std::vector<PlainSource> const& sources_;
  Survey const& survey_;
  PairSet const& form_;
  PairImportOptions const& options_;
  DType dtype_;
  std::uint64_t pair_bytes_ = 0;
};

void require_options(PairImportOptions const& options, Survey const& found) {
  if (!options.names.empty() && std::ssize(options.names) != found.total)
    throw DataError(fmt::format("there are names for {} pairs (the files hold {}), give one line per pair",
                                options.names.size(), found.total));
  auto const dtype = options.latent_dtype.value_or(DType::f32);
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16)
    throw DataError(
        fmt::format("latents cannot be stored as {} (f32, f16 and bf16 can), choose one of those", to_string(dtype)));
  if (options.latents_only < 0)
    throw DataError(fmt::format("pictures of {} pixels cannot be made (a size above 0 is needed), correct it",
                                options.latents_only));
}

}  // namespace

std::vector<PairName> read_pair_names(std::string const& path) {
  std::vector<PairName> names;
  std::istringstream text(read_text(path));
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    auto const first = line.find(','), second = line.find(',', first + 1);
    bool const three =
        first != std::string::npos && second != std::string::npos && line.find(',', second + 1) == std::string::npos;
    PairName const name =
        three ? PairName{line.substr(0, first), line.substr(first + 1, second - first - 1), line.substr(second + 1)}
              : PairName{};
    for (auto const* part : {&name.object, &name.light_x0, &name.light_x1})
      if (part->empty() || part->size() > kNameBytes)
        throw DataError(fmt::format(
            "{} line {} is \"{}\" (object,light of x0,light of x1 needed, each of 1 to {} bytes), correct it", path,
            names.size() + 1, line, kNameBytes));
    names.push_back(name);
  }
  return names;
}

PairImportReport import_pairs(std::vector<PlainSource> const& sources, PairImportOptions const& options) {
  auto const found = survey(sources, options.latents_only);
  require_options(options, found);
  NewFolder folder(options.out);
  PairShards const shards(sources, found, options);
  folder.require_space(shards.least_bytes());
  if (!found.left_behind.empty() && options.say)
    options.say(fmt::format("left behind, being nothing that an import takes: {}", fmt::join(found.left_behind, ", ")));
  std::vector<std::string> files;
  for (std::int64_t first = 0; first < found.total; first += shards.per_shard()) {
    auto const pairs = std::min(shards.per_shard(), found.total - first);
    files.push_back(fmt::format("pairs-{:05d}.h5", files.size()));
    shards.write(folder.working() + "/" + files.back(), first, pairs);
    if (options.say)
      options.say(fmt::format("{}: {} pairs ({} of {} done)", files.back(), pairs, first + pairs, found.total));
  }
  write_manifest(folder.working(), ShardKind::pair, files);
  folder.finish();
  return {found.total, std::ssize(files), found.form.sizes.tokens, found.form.sizes.dim, shards.dtype()};
}

}  // namespace duoflow::data
