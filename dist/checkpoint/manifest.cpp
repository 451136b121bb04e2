#include "dist/checkpoint/manifest.h"

#include <algorithm>
#include <limits>
#include <set>
#include <stdexcept>

#include <fmt/format.h>

#include "dist/checkpoint/xxh3.h"
#include "dist/error.h"
#include "text/json.h"

namespace duoflow::dist {
namespace {

using Json = nlohmann::ordered_json;

constexpr char own_hash_key[] = "manifest_xxh3";
std::string const zero_hash(16, '0');
constexpr std::uint64_t most_ranks = 1 << 24;

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
  if (!json.is_object() || !json.contains("format") || !json["format"].is_string() ||
      json["format"] != kCheckpointFormat || !json.contains("format_version") ||
      !json["format_version"].is_number_unsigned()) {
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

// nlohmann casts -1 and 1e300 to whatever is asked for.
std::uint64_t count_from_json(Json const& json, char const* what) {
  constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
  if (!json.is_number_unsigned() || json.get<std::uint64_t>() > most) {
    throw std::invalid_argument(fmt::format("{} is not a whole number from 0 on", what));
  }
  return json.get<std::uint64_t>();
}

std::int64_t signed_count_from_json(Json const& json, char const* what) {
  return static_cast<std::int64_t>(count_from_json(json, what));
}

// Of a file in the folder: nothing that leads elsewhere.
bool is_plain_name(std::string const& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         std::none_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < ' '; });
}

std::string hash_from_json(Json const& json) {
  auto hash = json.at("xxh3").get<std::string>();
  if (!is_hash(hash)) throw std::invalid_argument(fmt::format("\"{}\" is not an xxh3", hash));
  return hash;
}

void read_files(Json const& json, Manifest& manifest) {
  std::set<std::string> names;
  for (Json const& item : json) {
    ManifestFile file{item.at("name").get<std::string>(), hash_from_json(item),
                      count_from_json(item.at("bytes"), "the size of a file")};
    if (!is_plain_name(file.name) || !names.insert(file.name).second) {
      throw std::invalid_argument(
          fmt::format("file name \"{}\" is no plain name or there twice", text::printable(file.name)));
    }
    manifest.files.push_back(std::move(file));
  }
}

void read_tensors(Json const& json, Manifest& manifest) {
  std::set<std::string> names, files;
  for (ManifestFile const& file : manifest.files) files.insert(file.name);
  for (Json const& item : json) {
    ManifestTensor tensor{item.at("part").get<std::string>(), item.at("file").get<std::string>(),
                          entry_from_json(item)};
    if (!files.contains(tensor.file) || (tensor.part != "model" && tensor.part != "state") ||
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
    json = text::parse_json<Json>(text);
  } catch (std::exception const& error) {
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
    manifest.step = signed_count_from_json(json.at("step"), "the step");
    auto const world_size = count_from_json(json.at("world_size"), "world_size");
    if (world_size < 1 || world_size > most_ranks)
      throw std::invalid_argument(fmt::format("world_size is {}", world_size));
    manifest.world_size = static_cast<int>(world_size);
    manifest.duoflow_version = json.at("duoflow_version").get<std::string>();
    manifest.counters = json.at("counters");
    if (!manifest.counters.is_object()) throw std::invalid_argument("counters is no object");
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
  if (!json.at("shape").is_array()) throw std::invalid_argument("a shape is no list");
  for (Json const& size : json.at("shape")) entry.shape.push_back(signed_count_from_json(size, "a size of a shape"));
  entry.offset = count_from_json(json.at("offset"), "an offset");
  entry.bytes = count_from_json(json.at("bytes"), "the size of a tensor");
  entry.xxh3 = hash_from_json(json);
  return entry;
}

}  // namespace duoflow::dist
