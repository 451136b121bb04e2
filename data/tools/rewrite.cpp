#include "data/tools/rewrite.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "data/error.h"
#include "data/tools/new_folder.h"
#include "data/tools/shard_copy.h"
#include "data/shards/tables.h"

namespace duoflow::data {
namespace {

Keep const kEverything = [](std::string const&, std::string const&) { return true; };

void require_latents(RewriteOptions const& options, ShardKind kind, std::string const& directory) {
  if (!options.latent_dtype) return;
  auto const dtype = *options.latent_dtype;
  if (kind != ShardKind::pair)
    throw DataError(fmt::format("{} holds scene shards (they have no latents to store as {}), leave the type out",
                                directory, to_string(dtype)));
  if (dtype != DType::f32 && dtype != DType::f16 && dtype != DType::bf16)
    throw DataError(
        fmt::format("latents cannot be stored as {} (f32, f16 and bf16 can), choose one of those", to_string(dtype)));
}

DType stored_type(RewriteOptions const& options, Content const& content) {
  if (options.latent_dtype) return *options.latent_dtype;
  return content.kind == ShardKind::pair ? content.units.front().folder->pairs.latent_dtype : DType::f32;
}

// What the sources say of themselves (rows have one producer, load_pairs sees to it), each text once, in alphabetical
// order.
Attributes attributes_of(Content const& content) {
  std::set<DataFolder const*> folders;
  for (auto const& unit : content.units) folders.insert(unit.folder);
  std::set<std::string> producers, notes;
  for (auto const* folder : folders)
    for (auto const& shard : folder->index->shards()) {
      producers.insert(shard.attributes.producer);
      notes.insert(shard.attributes.note);
    }
  producers.erase("");
  notes.erase("");
  Attributes result;
  result.producer = fmt::format("{}", fmt::join(producers, "; "));
  result.note = fmt::format("{}", fmt::join(notes, "; "));
  return result;
}

class ShardPlan {
 public:
  ShardPlan(Content const& content, RewriteOptions const& options)
      : content_(content), dtype_(stored_type(options, content)) {
    std::int64_t begin = 0;
    std::uint64_t bytes = 0;
    for (std::int64_t group = 0; group < std::ssize(content.units);) {
      auto const end = end_of_group(group);
      auto const size = size_between(group, end);
      total_ += size.own;
      bool const full = (options.per_shard > 0 && end - begin > options.per_shard) ||
                        (options.per_shard == 0 && bytes + size.own + size.light_map > options.shard_bytes);
      if (group > begin && full) {
        ends_.push_back(group);
        begin = group;
        bytes = 0;
      }
      bytes += size.own + size.light_map;
      group = end;
    }
    ends_.push_back(std::ssize(content.units));
  }

  std::vector<std::int64_t> const& ends() const { return ends_; }
  std::uint64_t least_bytes() const { return total_; }

 private:
  std::int64_t end_of_group(std::int64_t begin) const {
    auto end = begin + 1;
    if (content_.kind == ShardKind::scene) return end;
    auto const& first = content_.units[static_cast<std::size_t>(begin)].row();
    for (; end < std::ssize(content_.units); ++end) {
      auto const& row = content_.units[static_cast<std::size_t>(end)].row();
      if (row.object != first.object || row.view_set != first.view_set) break;
    }
    return end;
  }

  UnitSize size_between(std::int64_t begin, std::int64_t end) const {
    UnitSize sum;
    for (auto i = begin; i < end; ++i) {
      auto const& unit = content_.units[static_cast<std::size_t>(i)];
      auto const size = content_.kind == ShardKind::scene ? size_of_scene(unit) : size_of_row(unit, dtype_);
      sum.own += size.own;
      sum.light_map += size.light_map;
    }
    return sum;
  }

  Content const& content_;
  DType dtype_;
  std::vector<std::int64_t> ends_;
  std::uint64_t total_ = 0;
};

std::vector<PairEntry> pairs_between(Content const& content, std::int64_t begin, std::int64_t end) {
  auto const before = [](PairEntry const& pair, std::int64_t row) { return pair.x0 < row; };
  std::vector<PairEntry> pairs;  // sorted by x0, and x1 lies in the same shard
  for (auto pair = std::lower_bound(content.pairs.begin(), content.pairs.end(), begin, before);
       pair != content.pairs.end() && pair->x0 < end; ++pair)
    pairs.push_back({pair->x0 - begin, pair->x1 - begin});
  return pairs;
}

void require_alike(DataFolder const& first, DataFolder const& other, RewriteOptions const& options) {
  auto const &a = first.index->directory(), &b = other.index->directory();
  auto const differ = [&](char const* what, std::string const& in_a, std::string const& in_b, char const* advice) {
    if (in_a != in_b)
      throw DataError(
          fmt::format("{} has {} {} ({} has {}: one folder holds one form), {}", b, what, in_b, a, in_a, advice));
  };
  differ("shards of kind", to_string(first.index->kind()), to_string(other.index->kind()), "merge folders of one kind");
  auto const form = [](DataFolder const& folder) {
    auto const& s = folder.scenes;
    auto const& p = folder.pairs;
    bool const scenes = folder.index->kind() == ShardKind::scene;
    return Common{folder.index->directory(),
                  {{"tokens", p.tokens},
                   {"latent width", p.dim},
                   {"target views", p.targets},
                   {"image height", scenes ? s.height : p.height},
                   {"image width", scenes ? s.width : p.width},
                   {"environment map height", scenes ? s.env_height : p.env_height},
                   {"environment map width", scenes ? s.env_width : p.env_width},
                   {"alpha (0 or 1)", s.has_alpha || p.has_alpha},
                   {"environment maps per frame (0 or 1)", s.env_per_frame}}};
  };
  require_same(form(first), form(other));
  if (first.index->kind() == ShardKind::scene) return;
  if (!options.latent_dtype)
    differ("latents of type", to_string(first.pairs.latent_dtype), to_string(other.pairs.latent_dtype),
           "give --dtype to store one");
  differ("the producer", first.pairs.producer, other.pairs.producer,
         "encode both with one checkpoint: latents of two do not mix");
}

RewriteReport rewrite(std::vector<std::string> const& directories, RewriteOptions const& options, bool one_of_a_name) {
  NewFolder folder(options.out);
  std::vector<DataFolder> sources;
  for (auto const& directory : directories) {
    sources.push_back(open_folder(directory));
    require_latents(options, sources.back().index->kind(), directory);
    require_alike(sources.front(), sources.back(), options);
    auto const foreign = foreign_datasets(sources.back());
    if (!foreign.empty() && options.say)
      options.say(
          fmt::format("left behind, being none of the schema's: {} of {}", fmt::join(foreign, ", "), directory));
  }
  auto const content = gather(sources, kEverything);
  if (one_of_a_name) require_distinct(content);
  auto const report = write_content(content, folder, "", options);
  folder.finish();
  return report;
}

}  // namespace

RewriteReport write_content(Content const& content, NewFolder const& folder, std::string const& subfolder,
                            RewriteOptions const& options) {
  if (content.units.empty())
    throw DataError(fmt::format("{}: there is nothing to write (no {} in the source), name a folder with data",
                                options.out, content.kind == ShardKind::scene ? "scene" : "row"));
  ShardPlan const plan(content, options);
  folder.require_space(plan.least_bytes());
  auto const directory = folder.working() + (subfolder.empty() ? "" : "/" + subfolder);
  begin_folder(directory);
  auto const attributes = attributes_of(content);
  RewriteReport report{.kind = content.kind,
                       .units = std::ssize(content.units),
                       .pairs = std::ssize(content.pairs),
                       .pairs_left_out = content.pairs_left_out};
  std::vector<std::string> files;
  std::int64_t begin = 0;
  for (auto const end : plan.ends()) {
    bool const scenes = content.kind == ShardKind::scene;
    files.push_back(fmt::format("{}-{:05d}.h5", scenes ? "scenes" : "pairs", files.size()));
    auto const path = directory + "/" + files.back();
    std::span const units(content.units.data() + begin, static_cast<std::size_t>(end - begin));
    if (scenes)
      write_scenes(path, units, attributes);
    else
      write_rows(path, units, pairs_between(content, begin, end), stored_type(options, content), attributes);
    auto const bytes = std::filesystem::file_size(path);
    report.bytes += bytes;
    if (options.say)
      options.say(fmt::format("{}: {} {}, {} ({} of {} done)", files.back(), end - begin, scenes ? "scenes" : "rows",
                              size_text(bytes), end, content.units.size()));
    begin = end;
  }
  write_manifest(directory, content.kind, files);
  report.shards = std::ssize(files);
  return report;
}

RewriteReport repack_folder(std::string const& directory, RewriteOptions const& options) {
  return rewrite({directory}, options, false);
}

RewriteReport merge_folders(std::vector<std::string> const& directories, RewriteOptions const& options) {
  if (directories.size() < 2)
    throw DataError("merge needs two folders or more (one is repacked by `duoflow repack`), name them");
  return rewrite(directories, options, true);
}

}  // namespace duoflow::data
