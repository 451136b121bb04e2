#include "launch/weights_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "dist/checkpoint/file_io.h"
#include "dist/error.h"
#include "launch/logging.h"
#include "model/reference_checkpoint/reference_checkpoint.h"

namespace duoflow::launch {

FileBytes::FileBytes(std::string path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // nobody may ever write to a pipe
  struct stat facts {};
  if (descriptor_ < 0 || ::fstat(descriptor_, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    auto const reason = descriptor_ < 0 ? std::strerror(errno) : "it is not a file";
    if (descriptor_ >= 0) ::close(descriptor_);
    throw dist::CheckpointError(fmt::format("{} cannot be read ({}); give a file of weights", path_, reason));
  }
  size_ = static_cast<std::uint64_t>(facts.st_size);
}

FileBytes::~FileBytes() { ::close(descriptor_); }

void FileBytes::read(std::uint64_t offset, void* data, std::size_t bytes) const {
  auto* at = static_cast<char*>(data);
  while (bytes > 0) {
    auto const got = ::pread(descriptor_, at, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0)
      throw dist::CheckpointError(fmt::format("{} cannot be read at byte {} ({}); copy it again", path_, offset,
                                              got < 0 ? std::strerror(errno) : "it ended early"));
    at += got;
    offset += static_cast<std::uint64_t>(got);
    bytes -= static_cast<std::size_t>(got);
  }
}

bool is_loss_network(std::string const& name) { return name.starts_with("loss_computer."); }

bool is_weights_file(std::string const& path) { return path.ends_with(".safetensors") || path.ends_with(".pt"); }

std::string weights_file_at(std::string const& path) {
  bool const ours = dist::path_exists(path + "/manifest.json") || dist::path_exists(path + "/checkpoints");
  if (ours || !dist::path_exists(path + "/.")) return path;  // a checkpoint, a run; no folder
  std::string last;
  for (auto const& name : dist::list_folder(path))
    if (name.ends_with(".pt")) last = name;  // sorted
  return last.empty() ? path : path + "/" + last;
}

std::vector<dist::NamedTensor> read_weights_file(std::string const& path) {
  std::vector<dist::NamedTensor> tensors;
  if (path.ends_with(".pt")) {
    FileBytes const file(path);
    try {
      for (auto& [name, tensor] : model::read_reference_weights(file)) tensors.push_back({name, tensor});
    } catch (model::FormatError const& error) {
      throw dist::CheckpointError(fmt::format("{}: {}", path, error.what()));
    }
  } else {
    tensors = dist::read_safetensors(path);
  }
  auto const networks = std::erase_if(tensors, [](auto const& named) { return is_loss_network(named.name); });
  if (networks > 0) log_info(fmt::format("{}: {} tensors of the reference's loss networks set aside", path, networks));
  return tensors;
}

void require_real_numbers(std::vector<dist::NamedTensor> const& tensors, std::string const& origin) {
  for (auto const& [name, tensor] : tensors) {
    if (!at::isFloatingType(tensor.scalar_type()))
      throw dist::CheckpointError(
          fmt::format("{}: {} holds {} (weights are floating-point numbers); convert it, or give another file",
                      origin, name, c10::toString(tensor.scalar_type())));
    auto const bad = tensor.numel() - at::isfinite(tensor).sum().item<std::int64_t>();  // once, at the start
    if (bad > 0)
      throw dist::CheckpointError(
          fmt::format("{}: {} of the {} numbers of {} are not finite (the run that wrote them had "
                      "diverged, or the file is damaged); give an earlier checkpoint",
                      origin, bad, tensor.numel(), name));
  }
}

}  // namespace duoflow::launch
