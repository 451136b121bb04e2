#pragma once
// A safetensors file that a command gives back (export, step).

#include <map>
#include <string>
#include <vector>

#include "dist/checkpoint/safetensors.h"

namespace duoflow::launch {

// ConfigError when `path` is a folder and no file can get that name: asked before the work, not found out after it.
void check_output_file(std::string const& path);

// The file has its name only when it is complete; what could not be completed is removed. Makes the folder.
void write_output_file(std::string const& path, std::vector<dist::NamedTensor> const& tensors,
                       std::map<std::string, std::string> const& metadata);

}  // namespace duoflow::launch
