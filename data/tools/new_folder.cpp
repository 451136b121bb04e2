#include "data/tools/new_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "data/error.h"
#include "data/file.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

[[noreturn]] void refuse_taken(std::string const& path) {
  throw DataError(fmt::format(
      "{} is there already and not an empty folder (nothing is written over), give another name or move it away",
      path));
}

void require_free(std::string const& path) {
  if (path.empty()) throw DataError("the output folder has no name, give one");
  if (!fs::exists(fs::symlink_status(path))) return;
  if (!fs::is_directory(path) || !fs::is_empty(path)) refuse_taken(path);
}

// So that the new name survives a power cut. Some network file systems cannot do it; they order the rename themselves.
void sync_parent(std::string const& path) {
  auto const parent = fs::path(path).parent_path();
  int const fd = ::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

}  // namespace

NewFolder::NewFolder(std::string const& path) : path_(without_slash(path)), working_(temporary_name(path_)) {
  require_free(path_);
  fs::remove_all(working_);  // of a process that had this number before
  fs::create_directories(working_);
}

NewFolder::~NewFolder() {
  std::error_code ignored;
  if (!finished_) fs::remove_all(working_, ignored);
}

void NewFolder::require_space(std::uint64_t bytes) const {
  auto const space = fs::space(working_);
  if (space.available < bytes)
    throw DataError(
        fmt::format("{} needs {} (its file system has {} left: {} missing), free some space or write elsewhere", path_,
                    size_text(bytes), size_text(space.available), size_text(bytes - space.available)));
}

void NewFolder::finish() {
  // rename(2) takes the place of an empty folder and of nothing else.
  if (std::rename(working_.c_str(), path_.c_str()) != 0) {
    if (errno == EEXIST || errno == ENOTEMPTY || errno == ENOTDIR) refuse_taken(path_);
    throw DataError(fmt::format("cannot rename {} to {} ({}), check the folder's permissions", working_, path_,
                                std::strerror(errno)));
  }
  finished_ = true;
  sync_parent(path_);
}

std::string size_text(std::uint64_t bytes) {
  auto const size = static_cast<double>(bytes);
  if (bytes < (1U << 20)) return fmt::format("{} bytes", bytes);
  if (bytes < (1U << 30)) return fmt::format("{:.1f} MiB", size / (1 << 20));
  return fmt::format("{:.2f} GiB", size / (1 << 30));
}

}  // namespace duoflow::data
