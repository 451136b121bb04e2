#pragma once
// The inside of safetensors.h: the header as text and as entries, and one pass over a file that checks and hashes it.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/checkpoint/safetensors.h"

namespace duoflow::dist {

using SafetensorsMetadata = std::map<std::string, std::string>;

// Throw CheckpointError for a type that the format or this trainer does not have; `where` begins the message.
std::string dtype_name(at::ScalarType type, std::string const& where);
at::ScalarType dtype_of(std::string const& name, std::string const& where);

// File name, tensor name, dtype and shape, as written: nothing of the values is looked at.
TensorEntry describe_tensor(NamedTensor const& named, std::string const& where);

// Bytes of the file before the data (length field, JSON, spaces up to a multiple of 64). Sets offset and bytes of
// entries.
std::string format_header(std::vector<TensorEntry>& entries, SafetensorsMetadata const& metadata,
                          std::string const& where);

struct SafetensorsHeader {
  std::vector<TensorEntry> entries;  // by offset, without gap or overlap up to the end of the file
  SafetensorsMetadata metadata;
  std::uint64_t data_begin = 0;
};

// `json` is the text after the length field. Throws CheckpointError.
SafetensorsHeader parse_header(std::string const& json, std::uint64_t file_bytes, std::string const& where);

enum class TensorBytes { keep, discard };

struct SafetensorsContents {
  SafetensorsHeader header;         // entries with their hash
  std::vector<at::Tensor> tensors;  // one per entry if kept
  std::string file_hash;
  std::uint64_t file_bytes = 0;
};

// Reads the whole file once. Throws CheckpointError.
SafetensorsContents scan_safetensors(std::string const& path, TensorBytes bytes);

}  // namespace duoflow::dist
