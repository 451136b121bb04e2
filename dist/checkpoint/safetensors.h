#pragma once
// safetensors files (8-byte little-endian header length, JSON header, raw bytes), readable by any other reader.
// https://github.com/huggingface/safetensors#format

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::dist {

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

struct TensorEntry {        // where one tensor lies in a file
  std::string name, dtype;  // dtype as safetensors spells it: F32 F16 BF16 F64 I64 I32 U8 BOOL
  std::vector<std::int64_t> shape;
  std::uint64_t offset = 0, bytes = 0;  // absolute byte offset in the file
  std::string xxh3;                     // 16 hex digits; filled by the writer
};

// Writes the tensors (any device, made contiguous) to `path` and syncs it. Data start is 64-byte aligned.
// Returns one entry per tensor in the order written, and the hash of the whole file in *file_hash when given.
std::vector<TensorEntry> write_safetensors(std::string const& path, std::vector<NamedTensor> const& tensors,
                                           std::map<std::string, std::string> const& metadata = {},
                                           std::string* file_hash = nullptr);

// Reads all tensors (CPU, own memory). Throws CheckpointError naming the file and what is wrong with it
// (missing, truncated, header not JSON, offsets out of bounds or overlapping, unknown dtype).
std::vector<NamedTensor> read_safetensors(std::string const& path,
                                          std::map<std::string, std::string>* metadata = nullptr);
std::vector<TensorEntry> read_safetensors_header(std::string const& path,
                                                 std::map<std::string, std::string>* metadata = nullptr);

}  // namespace duoflow::dist
