#include "data/shards/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "data/error.h"
#include "data/file.h"
#include "data/parallel.h"
#include "data/shards/shard_layout.h"
#include "data/shards/shard_receipt.h"
#include "data/shards/shard_scan.h"
#include "data/shards/shard_writer.h"
#include "text/json.h"

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

void require_finite(std::vector<float> const& numbers, char const* name, std::string const& path) {
  if (!std::all_of(numbers.begin(), numbers.end(), [](float x) { return std::isfinite(x); }))
    throw DataError(fmt::format("{}: attribute {} holds a number that is not finite (encoding diverged), encode again", path, name));
}

Json to_json(ShardInfo const& shard) {
  auto datasets = Json::object();
  for (auto const& [name, dataset] : shard.datasets) {
    auto hashes = Json::array();
    for (auto const hash : dataset.row_xxh3) hashes.push_back(hex16(hash));
    datasets[name] = {{"dtype", to_string(dataset.spec.dtype)},
                      {"shape", dataset.spec.shape},
                      {"offset", dataset.offset},
                      {"raw", dataset.raw},
                      {"row_xxh3", std::move(hashes)}};
  }
  Json attributes = {{"producer", shard.attributes.producer},
                     {"note", shard.attributes.note},
                     {"latent_mean", shard.attributes.latent_mean},
                     {"latent_std", shard.attributes.latent_std}};
  return {{"file", shard.file},
          {"bytes", shard.bytes},
          {"xxh3", shard.xxh3},
          {"rest_xxh3", shard.rest_xxh3},
          {"attributes", std::move(attributes)},
          {"datasets", std::move(datasets)}};
}

// ---- reading. A folder of 1000 shards has a million row hashes and little else: they are taken out of the text before it is parsed.

using RowHashLists = std::vector<std::vector<std::uint64_t>>;

struct Nonsense : std::runtime_error {  // without the file's name, which the caller knows
  using std::runtime_error::runtime_error;
};

std::uint64_t hash_from_hex(std::string_view digits) {
  std::uint64_t hash = 0;
  auto const [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), hash, 16);
  if (digits.size() != 16 || error != std::errc() || end != digits.data() + digits.size())
    throw Nonsense(fmt::format("\"{}\" is no hash of 16 hex digits", digits));
  return hash;
}

// Between [ and ] of a list as this program writes it: "0123456789abcdef","...", nothing else.
std::vector<std::uint64_t> hashes_from_list(std::string_view list) {
  constexpr std::size_t stride = sizeof("\"0123456789abcdef\",") - 1;
  if (!list.empty() && (list.size() + 1) % stride != 0) throw Nonsense("a list row_xxh3 is not one of hashes of 16 hex digits");
  std::vector<std::uint64_t> hashes;
  hashes.reserve((list.size() + 1) / stride);
  for (std::size_t at = 0; at < list.size(); at += stride) {
    if (list[at] != '"' || list[at + 17] != '"' || (at + 18 < list.size() && list[at + 18] != ','))
      throw Nonsense("a list row_xxh3 is not one of hashes of 16 hex digits");
    hashes.push_back(hash_from_hex(list.substr(at + 1, 16)));
  }
  return hashes;
}

// The text with each list of row hashes replaced by its number in `lists`. (Within a string the quotes would be escaped.)
std::string take_out_hashes(std::string_view text, RowHashLists& lists) {
  constexpr std::string_view key = "\"row_xxh3\":[";
  std::string rest;
  for (std::size_t at = 0;;) {
    auto const found = text.find(key, at);
    auto const end = found == text.npos ? text.npos : text.find(']', found);
    if (end == text.npos) return rest.append(text.substr(at));
    rest.append(text.substr(at, found + key.size() - 1 - at)).append(std::to_string(lists.size()));
    lists.push_back(hashes_from_list(text.substr(found + key.size(), end - found - key.size())));
    at = end + 1;
  }
}

std::int64_t count_from_json(Json const& json, char const* what) {
  auto const number = json.is_number_integer() && !json.is_number_unsigned() ? json.get<std::int64_t>() : -1;
  auto const natural = json.is_number_unsigned() ? json.get<std::uint64_t>() : std::uint64_t{0};
  if (!json.is_number_integer() || (!json.is_number_unsigned() && number < 0) || natural > std::uint64_t{1} << 62)
    throw Nonsense(fmt::format("{} is {} (a number from 0 to 2^62 needed)", what, json.dump()));
  return json.is_number_unsigned() ? static_cast<std::int64_t>(natural) : number;
}

DatasetIndex dataset_from_json(std::string const& name, Json const& json, RowHashLists& lists) {
  DatasetIndex dataset;
  dataset.spec = {name, dtype_from_string(json.at("dtype")), {}};
  auto bytes = static_cast<std::int64_t>(byte_size(dataset.spec.dtype));
  for (auto const& size : json.at("shape")) {
    dataset.spec.shape.push_back(count_from_json(size, "a size of a shape"));
    auto const first = dataset.spec.shape.size() == 1;  // there may be no rows, but a row has bytes
    if ((!first && dataset.spec.shape.back() == 0) ||
        __builtin_mul_overflow(bytes, std::max<std::int64_t>(1, dataset.spec.shape.back()), &bytes))
      throw Nonsense(fmt::format("dataset {} has the senseless shape {}", name, json.at("shape").dump()));
  }
  if (dataset.spec.shape.empty()) throw Nonsense(fmt::format("dataset {} has no shape", name));
  dataset.offset = static_cast<std::uint64_t>(count_from_json(json.at("offset"), "an offset"));
  dataset.raw = json.at("raw").get<bool>();
  auto const list = static_cast<std::size_t>(count_from_json(json.at("row_xxh3"), "row_xxh3"));
  if (list >= lists.size()) throw Nonsense(fmt::format("dataset {} has the number {} for its row_xxh3", name, list));
  dataset.row_xxh3 = std::move(lists[list]);
  if (static_cast<std::int64_t>(dataset.row_xxh3.size()) != dataset.spec.rows())
    throw Nonsense(fmt::format("dataset {} has {} row hashes for {} rows", name, dataset.row_xxh3.size(), dataset.spec.rows()));
  return dataset;
}

ShardInfo shard_from_json(Json const& json, RowHashLists& lists) {
  ShardInfo shard;
  shard.file = json.at("file").get<std::string>();
  if (shard.file.empty() || shard.file == "." || shard.file == ".." ||
      shard.file.find_first_of(std::string_view("/\0", 2)) != std::string::npos)
    throw Nonsense(fmt::format("shard \"{}\" is not the name of a file in the folder", shard.file));
  shard.bytes = static_cast<std::uint64_t>(count_from_json(json.at("bytes"), "the size of a shard"));
  shard.xxh3 = hex16(hash_from_hex(json.at("xxh3").get<std::string>()));
  if (json.contains("rest_xxh3")) shard.rest_xxh3 = hex16(hash_from_hex(json.at("rest_xxh3").get<std::string>()));
  auto const& attributes = json.at("attributes");
  shard.attributes = {attributes.at("producer"), attributes.at("latent_mean"), attributes.at("latent_std"), attributes.at("note")};
  for (auto const* numbers : {&shard.attributes.latent_mean, &shard.attributes.latent_std})
    if (!std::all_of(numbers->begin(), numbers->end(), [](float x) { return std::isfinite(x); }))
      throw Nonsense(fmt::format("shard {} has latent statistics that are not finite", shard.file));
  for (auto const& [name, dataset] : json.at("datasets").items()) shard.datasets[name] = dataset_from_json(name, dataset, lists);
  return shard;
}

void require_version(Json const& json, std::string const& path) {
  if (!json.is_object()) throw Nonsense("it is no JSON object");
  auto const version = count_from_json(json.at("schema_version"), "schema_version");
  if (version < 1 || version > kSchemaVersion)
    throw DataError(fmt::format("{} has schema version {} (this program reads up to {}), use a newer program or make the data again", path,
                                version, kSchemaVersion));
}

// The manifest's own hash where the text is as write_manifest writes it and unaltered. It is of the text without the last key, so
// nothing has to be parsed for it.
std::optional<std::string> own_hash(std::string_view text) {
  constexpr std::string_view key = ",\"xxh3\":\"", end = "\"}";
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (text.size() < key.size() + 16 + end.size() || !text.ends_with(end)) return std::nullopt;
  auto const at = text.size() - end.size() - 16 - key.size();
  RunningXxh3 body;
  body.add(text.data(), at);
  body.add("}", 1);
  auto hash = std::string(text.substr(at + key.size(), 16));
  if (text.substr(at, key.size()) != key || hex16(body.value()) != hash) return std::nullopt;
  return hash;
}

Json understood(std::string const& text, std::string const& path) try {
  return text::parse_json<Json>(text);
} catch (std::invalid_argument const& error) {
  throw DataError(fmt::format("{} cannot be understood ({}), restore it or write it again", path, error.what()));
}

// Altered (an error), or the same JSON in the form of another tool (spaces, order): that one brought into our form.
std::string rewritten(std::string const& text, std::string const& path) {
  auto json = understood(text, path);
  require_version(json, path);
  auto own = json.dump();
  if (own_hash(own)) return own;
  std::string const expected = json.at("xxh3");
  json.erase("xxh3");
  auto const body = json.dump();
  throw DataError(fmt::format("{} is altered (hash {} expected, {} found), restore it or write it again", path, expected,
                              xxh3_hex(body.data(), body.size())));
}

void fill_manifest(Manifest& manifest, Json const& json, RowHashLists& lists) try {
  manifest.kind = kind_from_string(json.at("kind"));
  std::set<std::string> names;
  for (auto const& shard : json.at("shards")) {
    manifest.shards.push_back(shard_from_json(shard, lists));
    if (!names.insert(manifest.shards.back().file).second)
      throw Nonsense(fmt::format("shard {} is listed twice", manifest.shards.back().file));
  }
} catch (DataError const& error) {
  throw Nonsense(error.what());
}

}  // namespace

std::string manifest_path(std::string const& directory) { return directory + "/manifest.json"; }

Manifest read_manifest(std::string const& directory) {
  auto const path = manifest_path(directory);
  if (!std::filesystem::exists(path))
    throw DataError(
        fmt::format("{} has no manifest.json (no data folder, or not finished), name a folder made by synth, ingest or "
                    "encode, or finish making it",
                    directory));
  auto text = read_text(path);
  try {
    if (!own_hash(text)) text = rewritten(text, path);
    RowHashLists lists;
    auto rest = take_out_hashes(text, lists);
    if (rest.ends_with('\n')) rest.pop_back();
    auto const json = understood(rest, path);
    require_version(json, path);
    if (json.dump() != rest) throw Nonsense("it is not as this program writes it, though its hash says so");
    Manifest manifest{.kind = ShardKind::scene, .shards = {}, .xxh3 = json.at("xxh3")};
    fill_manifest(manifest, json, lists);
    for (auto const& shard : manifest.shards) require_sound(shard, directory + "/" + shard.file);
    return manifest;
  } catch (Json::exception const& error) {
    throw DataError(fmt::format("{} cannot be understood ({}), restore it or write it again", path, error.what()));
  } catch (Nonsense const& error) {
    throw DataError(fmt::format("{} makes no sense ({}), write it again", path, error.what()));
  }
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
  ShardInfo shard{
      .file = file, .bytes = 0, .xxh3 = "", .rest_xxh3 = "", .datasets = std::move(layout.datasets), .attributes = layout.attributes};
  try {
    FileDescriptor const bytes(path);
    auto scan = scan_shard(bytes, shard.datasets, {});
    LibraryRows library(path);
    for (auto& [name, dataset] : shard.datasets)
      dataset.row_xxh3 = std::move((dataset.raw ? scan.rows[name] : scan_library_rows(dataset.spec, library)).xxh3);
    shard.bytes = scan.bytes;
    shard.xxh3 = scan.xxh3;
    shard.rest_xxh3 = scan.rest_xxh3;
  } catch (std::system_error const& error) {
    throw DataError(fmt::format("cannot read {} ({}), check the disk", path, error.what()));
  }
  return shard;
}

namespace {

// Of the shards of a folder whose manifest can be read and is of this kind; else of none.
std::map<std::string, Attributes> attributes_in_manifest(std::string const& directory, ShardKind kind) {
  std::map<std::string, Attributes> found;
  try {
    auto const manifest = read_manifest(directory);
    if (manifest.kind == kind)
      for (auto const& shard : manifest.shards) found.emplace(shard.file, shard.attributes);
  } catch (DataError const&) {  // none, or damaged: what the shards say themselves
  }
  return found;
}

}  // namespace

void require_own_shards(std::string const& directory, ShardKind kind, std::function<bool(Attributes const&)> const& is_own) {
  if (!fs::exists(directory)) return;
  auto const listed = attributes_in_manifest(directory, kind);
  for (auto const one : {ShardKind::scene, ShardKind::pair})
    for (auto const& path : shards_in(directory, one)) {
      if (one == kind && read_receipt(path.string())) continue;  // of work that was interrupted
      std::string why;
      try {
        auto const known = listed.find(path.filename().string());
        auto const layout = known == listed.end() ? read_layout(path.string()) : ShardLayout{kind, known->second, {}};
        auto const& note = layout.attributes.note;
        if (layout.kind != kind) why = fmt::format("holds {} samples", to_string(layout.kind));
        else if (!is_own(layout.attributes)) why = fmt::format("was made by something else{}", note.empty() ? "" : " (" + note + ")");
      } catch (DataError const& error) {
        why = fmt::format("cannot be read: {}", error.what());
      }
      if (!why.empty())
        throw DataError(fmt::format("{} {} (it would be lost); name another folder, or move it away", path.string(), why));
    }
}

void begin_folder(std::string const& directory) {
  fs::create_directories(directory);
  fs::remove(manifest_path(directory));
}

void write_manifest(std::string const& directory, ShardKind kind, std::vector<std::string> const& files) {
  Json json = {{"schema_version", kSchemaVersion}, {"kind", to_string(kind)}, {"shards", Json::array()}};
  std::set<std::string> seen;
  for (auto const& file : files)
    if (!seen.insert(file).second)
      throw DataError(fmt::format("shard {} is listed twice for {} (its samples would count twice), list it once", file, directory));
  std::vector<ShardInfo> shards(files.size());
  for_each_index(files.size(), 0, [&](std::size_t i) { shards[i] = survey_shard(directory, kind, files[i]); });
  for (auto const& shard : shards) json["shards"].push_back(to_json(shard));
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
