#include "data/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "data/error.h"
#include "data/file.h"
#include "data/shard_layout.h"
#include "data/shard_writer.h"

namespace duoflow::data {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

std::vector<fs::path> shards_in(std::string const& directory, ShardKind kind) {
  std::string const prefix = kind == ShardKind::scene ? "scenes-" : "pairs-";
  std::vector<fs::path> paths;
  for (auto const& entry : fs::directory_iterator(directory)) {
    auto const name = entry.path().filename().string();
    if (name.starts_with(prefix) && name.ends_with(".h5")) paths.push_back(entry.path());
  }
  return paths;
}

// Rows are hashed in runs of about this many bytes, so that small rows do not cost a system call each.
constexpr std::size_t kRunBytes = std::size_t{8} << 20;

// read(first_row, rows, destination)
template <class Read>
std::vector<std::string> hash_rows(DatasetSpec const& spec, Read const& read) {
  auto const row_bytes = spec.row_bytes();
  auto const run = std::max<std::int64_t>(1, static_cast<std::int64_t>(kRunBytes / row_bytes));
  std::vector<std::byte> buffer;
  std::vector<std::string> hashes;
  hashes.reserve(static_cast<std::size_t>(spec.rows()));
  for (std::int64_t first = 0; first < spec.rows(); first += run) {
    auto const rows = std::min(run, spec.rows() - first);
    buffer.resize(static_cast<std::size_t>(rows) * row_bytes);
    read(first, rows, buffer);
    for (std::int64_t row = 0; row < rows; ++row)
      hashes.push_back(xxh3_hex(buffer.data() + static_cast<std::size_t>(row) * row_bytes, row_bytes));
  }
  return hashes;
}

void require_finite(std::vector<float> const& numbers, char const* name, std::string const& path) {
  if (!std::all_of(numbers.begin(), numbers.end(), [](float x) { return std::isfinite(x); }))
    throw DataError(fmt::format("{}: attribute {} holds a number that is not finite (encoding diverged), encode again", path, name));
}

Json to_json(ShardInfo const& shard) {
  auto datasets = Json::object();
  for (auto const& [name, dataset] : shard.datasets)
    datasets[name] = {{"dtype", to_string(dataset.spec.dtype)},
                      {"shape", dataset.spec.shape},
                      {"offset", dataset.offset},
                      {"raw", dataset.raw},
                      {"row_xxh3", dataset.row_xxh3}};
  Json attributes = {{"producer", shard.attributes.producer},
                     {"note", shard.attributes.note},
                     {"latent_mean", shard.attributes.latent_mean},
                     {"latent_std", shard.attributes.latent_std}};
  return {{"file", shard.file},
          {"bytes", shard.bytes},
          {"xxh3", shard.xxh3},
          {"attributes", std::move(attributes)},
          {"datasets", std::move(datasets)}};
}

DatasetIndex dataset_from_json(std::string const& name, Json const& json) {
  DatasetIndex dataset;
  dataset.spec = {name, dtype_from_string(json.at("dtype")), json.at("shape")};
  dataset.offset = json.at("offset");
  dataset.raw = json.at("raw");
  dataset.row_xxh3 = json.at("row_xxh3").get<std::vector<std::string>>();
  if (static_cast<std::int64_t>(dataset.row_xxh3.size()) != dataset.spec.rows())
    throw DataError(fmt::format("dataset {} has {} row hashes for {} rows", name, dataset.row_xxh3.size(), dataset.spec.rows()));
  return dataset;
}

ShardInfo shard_from_json(Json const& json) {
  ShardInfo shard;
  shard.file = json.at("file");
  shard.bytes = json.at("bytes");
  shard.xxh3 = json.at("xxh3");
  auto const& attributes = json.at("attributes");
  shard.attributes = {attributes.at("producer"), attributes.at("latent_mean"), attributes.at("latent_std"), attributes.at("note")};
  for (auto const& [name, dataset] : json.at("datasets").items()) shard.datasets[name] = dataset_from_json(name, dataset);
  return shard;
}

void require_unaltered(Json json, std::string const& path) {
  std::string const expected = json.at("xxh3");
  json.erase("xxh3");
  auto const text = json.dump();
  auto const found = xxh3_hex(text.data(), text.size());
  if (found != expected)
    throw DataError(fmt::format("{} is altered (hash {} expected, {} found), restore it or write it again", path, expected, found));
}

void require_version(Json const& json, std::string const& path) {
  auto const version = json.at("schema_version").get<std::int64_t>();
  if (version < 1 || version > kSchemaVersion)
    throw DataError(fmt::format("{} has schema version {} (this program reads up to {}), use a newer program or make the data again",
                                path, version, kSchemaVersion));
}

}  // namespace

std::string manifest_path(std::string const& directory) { return directory + "/manifest.json"; }

Manifest read_manifest(std::string const& directory) {
  auto const path = manifest_path(directory);
  if (!std::filesystem::exists(path))
    throw DataError(fmt::format("{} has no manifest.json (no data folder, or not finished), name a folder made by synth, ingest or "
                                "encode, or finish making it",
                                directory));
  try {
    auto const json = Json::parse(read_text(path));
    require_version(json, path);
    require_unaltered(json, path);
    Manifest manifest{.kind = kind_from_string(json.at("kind")), .shards = {}, .xxh3 = json.at("xxh3")};
    for (auto const& shard : json.at("shards")) manifest.shards.push_back(shard_from_json(shard));
    return manifest;
  } catch (Json::exception const& error) {
    throw DataError(fmt::format("{} cannot be understood ({}), restore it or write it again", path, error.what()));
  }
}

std::vector<std::string> hash_direct_rows(DatasetIndex const& dataset, FileDescriptor const& bytes, std::string const& path) {
  return hash_rows(dataset.spec, [&](std::int64_t first, std::int64_t, std::vector<std::byte>& buffer) {
    auto const offset = dataset.offset + static_cast<std::uint64_t>(first) * dataset.spec.row_bytes();
    if (bytes.read_at(offset, buffer.data(), buffer.size()) != buffer.size())
      throw DataError(fmt::format("{} ends inside dataset {} ({} bytes expected at offset {}), make the shard again", path,
                                  dataset.spec.name, buffer.size(), offset));
  });
}

ShardInfo survey_shard(std::string const& directory, ShardKind kind, std::string const& file) {
  auto const path = directory + "/" + file;
  if (!std::filesystem::is_regular_file(path))
    throw DataError(fmt::format("{} is missing (the folder's list names it), make that shard first", path));
  auto layout = read_layout(path);
  if (layout.kind != kind)
    throw DataError(fmt::format("{} is a {} shard (the folder holds {} shards), keep the kinds in folders of their own", path,
                                to_string(layout.kind), to_string(kind)));
  require_finite(layout.attributes.latent_mean, "latent_mean", path);
  require_finite(layout.attributes.latent_std, "latent_std", path);
  ShardInfo shard{.file = file, .bytes = 0, .xxh3 = "", .datasets = std::move(layout.datasets), .attributes = layout.attributes};
  try {
    FileDescriptor const bytes(path);
    LibraryRows library(path);
    for (auto& [name, dataset] : shard.datasets)
      dataset.row_xxh3 = dataset.raw ? hash_direct_rows(dataset, bytes, path)
                                     : hash_rows(dataset.spec, [&](std::int64_t first, std::int64_t rows, std::vector<std::byte>& buffer) {
                                         library.read(dataset.spec, first, rows, buffer.data());
                                       });
    shard.bytes = bytes.size();
    shard.xxh3 = xxh3_of_file(path);
  } catch (std::system_error const& error) {
    throw DataError(fmt::format("cannot read {} ({}), check the disk", path, error.what()));
  }
  return shard;
}

void begin_folder(std::string const& directory) {
  fs::create_directories(directory);
  fs::remove(manifest_path(directory));
}

void write_manifest(std::string const& directory, ShardKind kind, std::vector<std::string> const& files) {
  Json json = {{"schema_version", kSchemaVersion}, {"kind", to_string(kind)}, {"shards", Json::array()}};
  std::set<std::string> seen;
  for (auto const& file : files) {
    if (!seen.insert(file).second)
      throw DataError(fmt::format("shard {} is listed twice for {} (its samples would count twice), list it once", file, directory));
    json["shards"].push_back(to_json(survey_shard(directory, kind, file)));
  }
  try {
    auto const text = json.dump();
    json["xxh3"] = xxh3_hex(text.data(), text.size());
    write_atomically(manifest_path(directory), json.dump() + "\n");
  } catch (Json::exception const& error) {
    throw DataError(fmt::format("{}: a shard's file name, producer or note is not UTF-8 ({}), write it again", directory, error.what()));
  }
  for (auto const& path : shards_in(directory, kind))
    if (!seen.contains(path.filename().string())) fs::remove(path);
}

}  // namespace duoflow::data
