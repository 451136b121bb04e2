#include <algorithm>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/file_io.h"
#include "dist/checkpoint/manifest.h"
#include "dist/checkpoint/safetensors_file.h"
#include "dist/checkpoint/xxh3.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

Manifest read_manifest(std::string const& folder) {
  return parse_manifest(read_text_file(manifest_path(folder)), manifest_path(folder));
}

std::string spell(TensorEntry const& entry) {
  return fmt::format("{} [{}] at byte {}, {} bytes", entry.dtype, fmt::join(entry.shape, ", "), entry.offset,
                     entry.bytes);
}

void check_tensor(TensorEntry const& expected, TensorEntry const& found, std::string const& path) {
  if (spell(expected) != spell(found)) {
    throw CheckpointError(fmt::format("{}: tensor \"{}\" differs from the manifest, expected {}, found {}", path,
                                      expected.name, spell(expected), spell(found)));
  }
  if (expected.xxh3 != found.xxh3) {
    throw CheckpointError(fmt::format("{}: tensor \"{}\" is altered, xxh3 expected {} found {}", path, expected.name,
                                      expected.xxh3, found.xxh3));
  }
}

// One file against the manifest. Throws CheckpointError on the first difference.
SafetensorsContents check_file(std::string const& folder, ManifestFile const& file, Manifest const& manifest,
                               TensorBytes bytes) {
  std::string const path = folder + "/" + file.name;
  if (auto const size = InputFile(path).size(); size != file.bytes) {
    throw CheckpointError(fmt::format("{}: {} bytes expected, {} found ({})", path, file.bytes, size,
                                      size < file.bytes ? "cut short" : "something was appended"));
  }
  SafetensorsContents contents = scan_safetensors(path, bytes);
  std::map<std::string, TensorEntry const*> found;
  for (TensorEntry const& entry : contents.header.entries) found[entry.name] = &entry;
  std::size_t listed = 0;
  for (ManifestTensor const& tensor : manifest.tensors) {
    if (tensor.file != file.name) continue;
    auto const match = found.find(tensor.entry.name);
    if (match == found.end()) {
      throw CheckpointError(
          fmt::format("{}: tensor \"{}\" of the manifest is not in the file", path, tensor.entry.name));
    }
    check_tensor(tensor.entry, *match->second, path);
    ++listed;
  }
  if (listed != found.size()) {
    throw CheckpointError(fmt::format("{}: {} tensors expected, {} found", path, listed, found.size()));
  }
  if (contents.file_hash != file.xxh3) {
    throw CheckpointError(
        fmt::format("{}: altered, xxh3 of the file expected {} found {}", path, file.xxh3, contents.file_hash));
  }
  return contents;
}

std::vector<NamedTensor> read_part(std::string const& folder, Manifest const& manifest, std::string const& part) {
  std::map<std::string, at::Tensor> tensors;
  for (ManifestFile const& file : manifest.files) {
    bool const wanted =
        std::any_of(manifest.tensors.begin(), manifest.tensors.end(),
                    [&](ManifestTensor const& tensor) { return tensor.file == file.name && tensor.part == part; });
    if (!wanted) continue;
    SafetensorsContents const contents = check_file(folder, file, manifest, TensorBytes::keep);
    for (std::size_t i = 0; i < contents.tensors.size(); ++i) {
      tensors[contents.header.entries[i].name] = contents.tensors[i];
    }
  }
  std::vector<NamedTensor> ordered;
  for (ManifestTensor const& tensor : manifest.tensors) {
    if (tensor.part == part) ordered.push_back({tensor.entry.name, tensors.at(tensor.entry.name)});
  }
  return ordered;
}

}  // namespace

CheckpointState read_checkpoint(std::string const& folder) {
  Manifest const manifest = read_manifest(folder);
  CheckpointState state;
  state.step = manifest.step;
  state.counters_json = manifest.counters.dump();
  state.config_yaml = manifest.config_yaml;
  state.model = read_part(folder, manifest, "model");
  state.state = read_part(folder, manifest, "state");
  return state;
}

std::vector<NamedTensor> read_checkpoint_model(std::string const& folder) {
  return read_part(folder, read_manifest(folder), "model");
}

std::string verify_checkpoint(std::string const& folder) {
  std::optional<Manifest> manifest;
  try {
    manifest = read_manifest(folder);
  } catch (CheckpointError const& error) {
    return error.what();
  }
  std::vector<std::string> problems;
  for (ManifestFile const& file : manifest->files) {
    try {
      check_file(folder, file, *manifest, TensorBytes::discard);
    } catch (CheckpointError const& error) {
      problems.emplace_back(error.what());
    }
  }
  return fmt::format("{}", fmt::join(problems, "; "));
}

nlohmann::json read_checkpoint_manifest(std::string const& folder) {
  std::string const path = manifest_path(folder);
  return parse_manifest_json(read_text_file(path), path);
}

std::string model_fingerprint(std::vector<NamedTensor> const& tensors) {
  std::map<std::string, std::string> lines;
  for (auto const& [name, tensor] : tensors) {
    TensorEntry const entry = describe_tensor({name, tensor}, "model fingerprint");
    at::Tensor const host = tensor.detach().to(at::kCPU).contiguous();
    Xxh3 bytes;
    bytes.update(host.const_data_ptr(), entry.bytes);
    lines[name] = fmt::format("{} {} [{}] {}\n", name, entry.dtype, fmt::join(entry.shape, ","), bytes.digest());
  }
  Xxh3 hash;
  for (auto const& [name, line] : lines) hash.update(line);
  return hash.digest();
}

}  // namespace duoflow::dist
