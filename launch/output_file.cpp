#include "launch/output_file.h"

#include <filesystem>
#include <system_error>

#include <fmt/format.h>

#include "launch/config.h"

namespace duoflow::launch {

void check_output_file(std::string const& path) {
  if (path.ends_with('/') || std::filesystem::is_directory(path))
    throw ConfigError(fmt::format("{}: a folder (one file is written); give the name of a file, for example {}{}", path,
                                  path, path.ends_with('/') ? "out.safetensors" : "/out.safetensors"));
}

void write_output_file(std::string const& path, std::vector<dist::NamedTensor> const& tensors,
                       std::map<std::string, std::string> const& metadata) {
  auto const folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder);
  auto const temporary = path + ".tmp";
  try {
    dist::write_safetensors(temporary, tensors, metadata);
    std::filesystem::rename(temporary, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
}

}  // namespace duoflow::launch
