#include "dist/checkpoint/manifest.h"

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>

#include <fmt/format.h>

#include "dist/checkpoint/xxh3.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

using Json = nlohmann::ordered_json;

constexpr char own_hash_key[] = "manifest_xxh3";
std::string const zero_hash(16, '0');

// The own hash is taken over the text with zeros in its place.
std::size_t own_hash_position(std::string const& text) {
  std::string const opening = fmt::format("\"{}\": \"", own_hash_key);
  auto const found = text.find(opening);
  return found == std::string::npos ? found : found + opening.size();
}

bool is_hash(std::string const& text) {
  return text.size() == 16 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

void check_format(Json const& json, std::string const& path) {
  if (!json.is_object() || !json.contains("format") || json["format"] != kCheckpointFormat ||
      !json.contains("format_version") || !json["format_version"].is_number_unsigned()) {
    throw CheckpointError(fmt::format("{}: not the manifest of a {}", path, kCheckpointFormat));
  }
  if (auto const version = json["format_version"].get<std::uint64_t>(); version > checkpoint_format_version) {
    throw CheckpointError(
        fmt::format("{}: format {} is newer than {}, the newest this program reads; use the program "
                    "that wrote it or a later one",
                    path, version, checkpoint_format_version));
  }
}

void check_own_hash(std::string text, std::string const& path) {
  auto const position = own_hash_position(text);
  if (position == std::string::npos || text.size() < position + zero_hash.size()) {
    throw CheckpointError(path + ": the manifest's own hash is missing");
  }
  std::string const expected = text.substr(position, zero_hash.size());
  std::string const found = xxh3_of(text.replace(position, zero_hash.size(), zero_hash));
  if (expected != found) {
    throw CheckpointError(fmt::format("{}: altered, xxh3 expected {} found {}", path, expected, found));
  }
}

std::string hash_from_json(Json const& json) {
  auto hash = json.at("xxh3").get<std::string>();
  if (!is_hash(hash)) throw std::invalid_argument(fmt::format("\"{}\" is not an xxh3", hash));
  return hash;
}

void read_files(Json const& json, Manifest& manifest) {
  std::set<std::string> names;
  for (Json const& item : json) {
    ManifestFile file{item.at("name").get<std::string>(), hash_from_json(item), item.at("bytes").get<std::uint64_t>()};
    if (file.name.empty() || file.name.find('/') != std::string::npos || !names.insert(file.name).second) {
      throw std::invalid_argument(fmt::format("file name \"{}\" is no plain name or there twice", file.name));
    }
    manifest.files.push_back(std::move(file));
  }
}

void read_tensors(Json const& json, Manifest& manifest) {
  std::set<std::string> names;
  for (Json const& item : json) {
    ManifestTensor tensor{item.at("part").get<std::string>(), item.at("file").get<std::string>(),
                          entry_from_json(item)};
    bool const listed = std::any_of(manifest.files.begin(), manifest.files.end(),
                                    [&](ManifestFile const& file) { return file.name == tensor.file; });
    if (!listed || (tensor.part != "model" && tensor.part != "state") ||
        !names.insert(tensor.part + ":" + tensor.entry.name).second) {
      throw std::invalid_argument(
          fmt::format("tensor \"{}\" is there twice, of unknown part \"{}\" or in the unlisted "
                      "file \"{}\"",
                      tensor.entry.name, tensor.part, tensor.file));
    }
    manifest.tensors.push_back(std::move(tensor));
  }
}

}  // namespace

std::string manifest_path(std::string const& folder) { return folder + "/manifest.json"; }

std::string manifest_text(Manifest const& manifest) {
  Json files = Json::array();
  for (ManifestFile const& file : manifest.files) {
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3", file.xxh3}});
  }
  Json tensors = Json::array();
  for (ManifestTensor const& tensor : manifest.tensors) {
    Json item = {{"part", tensor.part}, {"file", tensor.file}};
    item.update(to_json(tensor.entry));
    tensors.push_back(std::move(item));
  }
  Json const json = {{own_hash_key, zero_hash},
                     {"format", kCheckpointFormat},
                     {"format_version", checkpoint_format_version},
                     {"duoflow_version", manifest.duoflow_version},
                     {"step", manifest.step},
                     {"world_size", manifest.world_size},
                     {"counters", manifest.counters},
                     {"config_yaml", manifest.config_yaml},
                     {"files", std::move(files)},
                     {"tensors", std::move(tensors)}};
  std::string text = json.dump(1) + "\n";
  return text.replace(own_hash_position(text), zero_hash.size(), xxh3_of(text));
}

Json parse_manifest_json(std::string const& text, std::string const& path) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (Json::exception const& error) {
    throw CheckpointError(fmt::format("{}: not JSON (cut short or altered: {})", path, error.what()));
  }
  check_format(json, path);  // first: a newer format may keep its hash elsewhere
  check_own_hash(text, path);
  return json;
}

Manifest parse_manifest(std::string const& text, std::string const& path) {
  Json const json = parse_manifest_json(text, path);
  try {
    Manifest manifest;
    manifest.step = json.at("step").get<std::int64_t>();
    manifest.world_size = json.at("world_size").get<int>();
    manifest.duoflow_version = json.at("duoflow_version").get<std::string>();
    manifest.counters = json.at("counters");
    manifest.config_yaml = json.at("config_yaml").get<std::string>();
    read_files(json.at("files"), manifest);
    read_tensors(json.at("tensors"), manifest);
    return manifest;
  } catch (std::exception const& error) {
    throw CheckpointError(fmt::format("{}: a field is missing or wrong ({})", path, error.what()));
  }
}

Json to_json(TensorEntry const& entry) {
  return {{"name", entry.name},     {"dtype", entry.dtype}, {"shape", entry.shape},
          {"offset", entry.offset}, {"bytes", entry.bytes}, {"xxh3", entry.xxh3}};
}

TensorEntry entry_from_json(Json const& json) {
  TensorEntry entry;
  entry.name = json.at("name").get<std::string>();
  entry.dtype = json.at("dtype").get<std::string>();
  entry.shape = json.at("shape").get<std::vector<std::int64_t>>();
  entry.offset = json.at("offset").get<std::uint64_t>();
  entry.bytes = json.at("bytes").get<std::uint64_t>();
  entry.xxh3 = hash_from_json(json);
  return entry;
}

}  // namespace duoflow::dist
