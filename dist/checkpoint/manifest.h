#pragma once
// manifest.json: what a checkpoint holds and the hash of all of it. The format is described in checkpoint.h.

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "dist/checkpoint/safetensors.h"

namespace duoflow::dist {

inline constexpr char kCheckpointFormat[] = "duoflow-checkpoint";
inline constexpr int checkpoint_format_version = 1;

struct ManifestTensor {
  std::string part;  // "model" or "state"
  std::string file;
  TensorEntry entry;
};

struct ManifestFile {
  std::string name, xxh3;
  std::uint64_t bytes = 0;
};

struct Manifest {
  std::int64_t step = 0;
  int world_size = 1;
  std::string duoflow_version;
  nlohmann::ordered_json counters;
  std::string config_yaml;
  std::vector<ManifestFile> files;
  std::vector<ManifestTensor> tensors;  // model first, each part in the order it was handed over
};

std::string manifest_path(std::string const& folder);
std::string manifest_text(Manifest const& manifest);  // with its own hash

// Throw CheckpointError, beginning with `path`, for a text that is cut short, altered, of a newer format, or that
// leaves any file or tensor without a hash.
nlohmann::ordered_json parse_manifest_json(std::string const& text, std::string const& path);
Manifest parse_manifest(std::string const& text, std::string const& path);

nlohmann::ordered_json to_json(TensorEntry const& entry);
TensorEntry entry_from_json(nlohmann::ordered_json const& json);

}  // namespace duoflow::dist
