#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <system_error>

#include "data/cameras.h"
#include "data/error.h"
#include "data/shards/manifest.h"
#include "data/parallel.h"
#include "data/shards/raw_reader.h"
#include "data/shards/shard_index.h"
#include "data/shards/shard_layout.h"
#include "data/shards/shard_scan.h"

namespace duoflow::data {
namespace {

using Problems = std::vector<std::string>;

// A hurt disk can hurt every row: enough are listed to see the pattern.
constexpr int kMostRowsListed = 8;

void compare_rows(DatasetIndex const& expected, std::vector<std::uint64_t> const& found, std::string const& path, Problems& problems) {
  std::int64_t altered = 0;
  for (std::size_t row = 0; row < std::min(expected.row_xxh3.size(), found.size()); ++row) {
    if (expected.row_xxh3[row] == found[row]) continue;
    if (++altered <= kMostRowsListed)
      problems.push_back(fmt::format("{}: dataset {} row {} at offset {} is altered (xxh3 {} expected, {} found)", path, expected.spec.name,
                                     row, expected.offset + row * expected.spec.row_bytes(), hex16(expected.row_xxh3[row]),
                                     hex16(found[row])));
  }
  if (altered > kMostRowsListed)
    problems.push_back(fmt::format("{}: dataset {} has {} altered rows in all", path, expected.spec.name, altered));
  if (found.size() < expected.row_xxh3.size())
    problems.push_back(fmt::format("{}: the file ends inside dataset {} (row {} of {})", path, expected.spec.name, found.size(),
                                   expected.row_xxh3.size()));
}

std::string form(DatasetIndex const& dataset) {
  return fmt::format("{} [{}] at offset {}, {}", to_string(dataset.spec.dtype), fmt::join(dataset.spec.shape, ","), dataset.offset,
                     dataset.raw ? "direct" : "through HDF5");
}

struct ShardReport {
  Problems altered, senseless;
};

void compare_scan(ShardInfo const& expected, std::map<std::string, ScannedRows> const& scan, std::string const& path, ShardReport& report) {
  for (auto const& [name, rows] : scan) {
    compare_rows(expected.datasets.at(name), rows.xxh3, path, report.altered);
    if (rows.first_not_finite >= 0)
      report.senseless.push_back(fmt::format("{}: dataset {} row {} holds a number that is not finite", path, name, rows.first_not_finite));
  }
}

void compare_bytes(ShardInfo const& expected, ShardScan const& scan, std::string const& path, ShardReport& report) {
  auto& problems = report.altered;
  if (scan.bytes != expected.bytes)
    problems.push_back(fmt::format("{}: {} bytes (the manifest says {})", path, scan.bytes, expected.bytes));
  if (scan.xxh3 != expected.xxh3)
    problems.push_back(fmt::format("{}: the file is altered (xxh3 {} expected, {} found)", path, expected.xxh3, scan.xxh3));
  if (!expected.rest_xxh3.empty() && scan.rest_xxh3 != expected.rest_xxh3)
    problems.push_back(
        fmt::format("{}: bytes outside every directly read row are altered: HDF5 metadata, attributes, padding or chunks (xxh3 "
                    "{} expected, {} found)",
                    path, expected.rest_xxh3, scan.rest_xxh3));
  compare_scan(expected, scan.rows, path, report);
}

// What HDF5 says of a file whose bytes are proven: on damaged ones the library may crash.
void compare_layouts(ShardInfo const& expected, ShardKind kind, std::string const& path, ShardReport& report) {
  auto& problems = report.altered;
  auto const found = read_layout(path);
  if (found.kind != kind)
    problems.push_back(fmt::format("{}: a {} shard (the manifest says {})", path, to_string(found.kind), to_string(kind)));
  LibraryRows library(path);
  std::map<std::string, ScannedRows> library_rows;
  for (auto const& [name, dataset] : found.datasets)
    if (expected.datasets.count(name) == 0) problems.push_back(fmt::format("{}: dataset {} is not in the manifest", path, name));
  for (auto const& [name, dataset] : expected.datasets) {
    auto const other = found.datasets.find(name);
    if (other == found.datasets.end())
      problems.push_back(fmt::format("{}: dataset {} is in the manifest but not in the file", path, name));
    else if (form(dataset) != form(other->second))
      problems.push_back(fmt::format("{}: dataset {} is {} (the manifest says {})", path, name, form(other->second), form(dataset)));
    else if (!dataset.raw)
      library_rows[name] = scan_library_rows(dataset.spec, library);
  }
  compare_scan(expected, library_rows, path, report);
  auto const &a = expected.attributes, &b = found.attributes;
  if (a.producer != b.producer || a.note != b.note || a.latent_mean != b.latent_mean || a.latent_std != b.latent_std)
    problems.push_back(fmt::format("{}: the attributes differ from the manifest's", path));
}

ShardReport check_shard(std::string const& directory, ShardKind kind, ShardInfo const& expected,
                        std::function<void(std::uint64_t)> const& on_bytes) {
  ShardReport report;
  auto const path = directory + "/" + expected.file;
  try {
    if (!std::filesystem::is_regular_file(path)) {
      report.altered.push_back(fmt::format("{}: the file is missing", path));
      return report;
    }
    auto const scan = scan_shard(FileDescriptor(path), expected.datasets, on_bytes);
    compare_bytes(expected, scan, path, report);
    if (scan.xxh3 == expected.xxh3) compare_layouts(expected, kind, path, report);
  } catch (DataError const& problem) {
    report.altered.emplace_back(problem.what());
  } catch (std::system_error const& error) {  // a failing disk
    report.altered.push_back(fmt::format("{}: {}", path, error.what()));
  }
  return report;
}

// Readers go by the manifest: such a shard is of another run, or the manifest is.
void list_strangers(std::string const& directory, std::vector<ShardInfo> const& known, Problems& problems) {
  std::set<std::string> strangers;
  for (auto const& entry : std::filesystem::directory_iterator(directory)) {
    auto const file = entry.path().filename().string();
    bool const listed = std::any_of(known.begin(), known.end(), [&](ShardInfo const& shard) { return shard.file == file; });
    if (entry.path().extension() == ".h5" && !listed) strangers.insert(file);
  }
  for (auto const& file : strangers)
    problems.push_back(
        fmt::format("{}/{}: the file is not in the manifest (it is never read); remove it, or make the data again", directory, file));
}

void check_scenes(ShardIndex const& index, Problems& problems) {
  auto const set = load_scenes(index);
  for (auto const& scene : set.scenes)
    for (std::int64_t frame = 0; frame < scene.frame_count; ++frame) {
      auto const problem = camera_problem(&scene.c2w[static_cast<std::size_t>(16 * frame)],
                                          &scene.fxfycxcy[static_cast<std::size_t>(4 * frame)], set.height, set.width);
      if (!problem.empty())
        problems.push_back(fmt::format("{}/{}: dataset c2w row {} ({} under {}): {}", index.directory(),
                                       index.shards()[static_cast<std::size_t>(scene.shard)].file, scene.first_frame + frame, scene.object,
                                       scene.light, problem));
    }
}

void check_pairs(ShardIndex const& index, RawReader const& reader, Problems& problems) {
  auto const set = load_pairs(index);
  std::vector<float> c2w(static_cast<std::size_t>(16 * set.targets)), fxfycxcy(static_cast<std::size_t>(4 * set.targets));
  for (auto const& row : set.rows) {
    reader.read(row.shard, "target_c2w", row.row, c2w.data());
    reader.read(row.shard, "target_fxfycxcy", row.row, fxfycxcy.data());
    std::array<float, 16> world_to_norm{};
    reader.read(row.shard, "world_to_norm", row.row, world_to_norm.data());
    if (auto const problem = world_to_norm_problem(world_to_norm.data()); !problem.empty())
      problems.push_back(fmt::format("{}/{}: dataset world_to_norm row {} ({} under {}): {}", index.directory(),
                                     index.shards()[static_cast<std::size_t>(row.shard)].file, row.row, row.object, row.light, problem));
    for (std::int64_t view = 0; view < set.targets; ++view) {
      auto const problem =
          camera_problem(&c2w[static_cast<std::size_t>(16 * view)], &fxfycxcy[static_cast<std::size_t>(4 * view)], set.height, set.width);
      if (!problem.empty())
        problems.push_back(fmt::format("{}/{}: dataset target_c2w row {} view {} ({} under {}): {}", index.directory(),
                                       index.shards()[static_cast<std::size_t>(row.shard)].file, row.row, view, row.object, row.light,
                                       problem));
    }
  }
}

}  // namespace

std::vector<std::string> verify_folder(std::string const& directory, VerifyOptions const& options) {
  Problems problems, senseless;
  try {
    auto const manifest = read_manifest(directory);
    std::uint64_t in_all = 0, done = 0;
    for (auto const& shard : manifest.shards) in_all += shard.bytes;
    std::mutex mutex;
    auto const on_bytes = [&](std::uint64_t bytes) {
      std::lock_guard const held(mutex);
      done += bytes;
      if (options.progress) options.progress(done, in_all);
    };
    std::vector<ShardReport> reports(manifest.shards.size());
    for_each_index(reports.size(), options.threads,
                   [&](std::size_t i) { reports[i] = check_shard(directory, manifest.kind, manifest.shards[i], on_bytes); });
    for (auto const& report : reports) {
      problems.insert(problems.end(), report.altered.begin(), report.altered.end());
      senseless.insert(senseless.end(), report.senseless.begin(), report.senseless.end());
    }
    bool const as_written = problems.empty();
    list_strangers(directory, manifest.shards, problems);
    if (!as_written) return problems;  // senseless bytes would only repeat what is known
    problems.insert(problems.end(), senseless.begin(), senseless.end());
    auto const index = std::make_shared<ShardIndex const>(directory);
    if (index->kind() == ShardKind::scene)
      check_scenes(*index, problems);
    else
      check_pairs(*index, RawReader(index, Verify::never), problems);
  } catch (DataError const& problem) {
    problems.emplace_back(problem.what());
  }
  return problems;
}

}  // namespace duoflow::data
