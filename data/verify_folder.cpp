#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <system_error>

#include "data/cameras.h"
#include "data/error.h"
#include "data/manifest.h"
#include "data/raw_reader.h"
#include "data/shard_index.h"

namespace duoflow::data {
namespace {

using Problems = std::vector<std::string>;

// A hurt disk can hurt every row: enough are listed to see the pattern.
constexpr int kMostRowsListed = 8;

void compare_rows(DatasetIndex const& expected, std::vector<std::string> const& found, std::string const& path, Problems& problems) {
  std::int64_t altered = 0;
  for (std::size_t row = 0; row < expected.row_xxh3.size(); ++row) {
    if (expected.row_xxh3[row] == found[row]) continue;
    if (++altered <= kMostRowsListed)
      problems.push_back(fmt::format("{}: dataset {} row {} at offset {} is altered (xxh3 {} expected, {} found)", path, expected.spec.name,
                                     row, expected.offset + row * expected.spec.row_bytes(), expected.row_xxh3[row], found[row]));
  }
  if (altered > kMostRowsListed)
    problems.push_back(fmt::format("{}: dataset {} has {} altered rows in all", path, expected.spec.name, altered));
}

std::string form(DatasetIndex const& dataset) {
  return fmt::format("{} [{}] at offset {}, {}", to_string(dataset.spec.dtype), fmt::join(dataset.spec.shape, ","), dataset.offset,
                     dataset.raw ? "direct" : "through HDF5");
}

void compare_shards(ShardInfo const& expected, ShardInfo const& found, std::string const& path, Problems& problems) {
  for (auto const& [name, dataset] : found.datasets)
    if (expected.datasets.count(name) == 0) problems.push_back(fmt::format("{}: dataset {} is not in the manifest", path, name));
  for (auto const& [name, dataset] : expected.datasets) {
    auto const other = found.datasets.find(name);
    if (other == found.datasets.end())
      problems.push_back(fmt::format("{}: dataset {} is in the manifest but not in the file", path, name));
    else if (form(dataset) != form(other->second))
      problems.push_back(fmt::format("{}: dataset {} is {} (the manifest says {})", path, name, form(other->second), form(dataset)));
    else
      compare_rows(dataset, other->second.row_xxh3, path, problems);
  }
  auto const &a = expected.attributes, &b = found.attributes;
  if (a.producer != b.producer || a.note != b.note || a.latent_mean != b.latent_mean || a.latent_std != b.latent_std)
    problems.push_back(fmt::format("{}: the attributes differ from the manifest's", path));
}

// A damaged file: which rows are hurt, by the manifest's offsets. HDF5 stays closed: the library crashes on some damage.
void list_damage(ShardInfo const& expected, std::string const& path, Problems& problems) {
  FileDescriptor const bytes(path);
  for (auto const& [name, dataset] : expected.datasets) {
    if (!dataset.raw) continue;
    try {
      compare_rows(dataset, hash_direct_rows(dataset, bytes, path), path, problems);
    } catch (DataError const& problem) {
      problems.emplace_back(problem.what());
    }
  }
}

void check_shard(std::string const& directory, ShardKind kind, ShardInfo const& expected, Problems& problems) try {
  auto const path = directory + "/" + expected.file;
  if (!std::filesystem::is_regular_file(path)) {
    problems.push_back(fmt::format("{}: the file is missing", path));
    return;
  }
  auto const bytes = std::filesystem::file_size(path);
  if (bytes != expected.bytes) problems.push_back(fmt::format("{}: {} bytes (the manifest says {})", path, bytes, expected.bytes));
  auto const hash = xxh3_of_file(path);
  if (hash == expected.xxh3) return compare_shards(expected, survey_shard(directory, kind, expected.file), path, problems);
  problems.push_back(fmt::format("{}: the file is altered (xxh3 {} expected, {} found)", path, expected.xxh3, hash));
  list_damage(expected, path, problems);
} catch (DataError const& problem) {
  problems.emplace_back(problem.what());
} catch (std::system_error const& error) {  // a failing disk
  problems.push_back(fmt::format("{}/{}: {}", directory, expected.file, error.what()));
}

// Readers go by the manifest: such a shard is of another run, or the manifest is.
void list_strangers(std::string const& directory, std::vector<ShardInfo> const& known, Problems& problems) {
  std::set<std::string> strangers;
  for (auto const& entry : std::filesystem::directory_iterator(directory)) {
    auto const file = entry.path().filename().string();
    bool const listed =
        std::any_of(known.begin(), known.end(), [&](ShardInfo const& shard) { return shard.file == file; });
    if (entry.path().extension() == ".h5" && !listed) strangers.insert(file);
  }
  for (auto const& file : strangers)
    problems.push_back(
        fmt::format("{}/{}: the file is not in the manifest (it is never read); remove it, or make the data again",
                    directory, file));
}

template <class Bits>
bool all_finite(std::vector<std::byte> const& row, Bits exponent) {
  for (std::size_t at = 0; at + sizeof(Bits) <= row.size(); at += sizeof(Bits)) {
    Bits bits;
    std::memcpy(&bits, row.data() + at, sizeof(Bits));
    if ((bits & exponent) == exponent) return false;  // an exponent of ones is an infinity or no number
  }
  return true;
}

bool all_finite(std::vector<std::byte> const& row, DType dtype) {
  switch (dtype) {
    case DType::f32: return all_finite<std::uint32_t>(row, 0x7f800000U);
    case DType::f16: return all_finite<std::uint16_t>(row, 0x7c00U);
    case DType::bf16: return all_finite<std::uint16_t>(row, 0x7f80U);
    default: return true;
  }
}

void check_finite(ShardIndex const& index, RawReader const& reader, Problems& problems) {
  std::vector<std::byte> bytes;
  for (std::size_t shard = 0; shard < index.shards().size(); ++shard) {
    for (auto const& [name, dataset] : index.shards()[shard].datasets) {
      bool const has_floats = dataset.spec.dtype == DType::f32 || dataset.spec.dtype == DType::f16 || dataset.spec.dtype == DType::bf16;
      bytes.resize(dataset.spec.row_bytes());
      for (std::int64_t row = 0; has_floats && row < dataset.spec.rows(); ++row) {
        reader.read(static_cast<std::int64_t>(shard), name, row, bytes.data());
        if (all_finite(bytes, dataset.spec.dtype)) continue;
        problems.push_back(fmt::format("{}/{}: dataset {} row {} holds a number that is not finite", index.directory(),
                                       index.shards()[shard].file, name, row));
        break;
      }
    }
  }
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
    for (std::int64_t view = 0; view < set.targets; ++view) {
      auto const problem = camera_problem(&c2w[static_cast<std::size_t>(16 * view)], &fxfycxcy[static_cast<std::size_t>(4 * view)],
                                          set.height, set.width);
      if (!problem.empty())
        problems.push_back(fmt::format("{}/{}: dataset target_c2w row {} view {} ({} under {}): {}", index.directory(),
                                       index.shards()[static_cast<std::size_t>(row.shard)].file, row.row, view, row.object, row.light,
                                       problem));
    }
  }
}

}  // namespace

std::vector<std::string> verify_folder(std::string const& directory) {
  Problems problems;
  try {
    auto const manifest = read_manifest(directory);
    for (auto const& shard : manifest.shards) check_shard(directory, manifest.kind, shard, problems);
    bool const as_written = problems.empty();
    list_strangers(directory, manifest.shards, problems);
    if (!as_written) return problems;  // senseless bytes would only repeat what is known
    auto const index = std::make_shared<ShardIndex const>(directory);
    RawReader const reader(index, Verify::never);
    check_finite(*index, reader, problems);
    if (index->kind() == ShardKind::scene)
      check_scenes(*index, problems);
    else
      check_pairs(*index, reader, problems);
  } catch (DataError const& problem) {
    problems.emplace_back(problem.what());
  }
  return problems;
}

}  // namespace duoflow::data
