#include "data/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include DUOFLOW_XXHASH  // cmake/Xxhash.cmake

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "data/error.h"

namespace duoflow::data {
namespace {

// Linux moves at most 0x7ffff000 bytes in one call.
constexpr std::size_t kMostPerCall = std::size_t{1} << 30;
// A file with a hole claims any size without filling a disk.
constexpr std::uint64_t kMostTextBytes = std::uint64_t{4} << 30;

std::string reason() { return std::strerror(errno); }

std::string advice() {
  if (errno == EMFILE || errno == ENFILE) return "raise the limit on open files (ulimit -n)";
  if (errno == ENOSPC || errno == EDQUOT) return "free some space";
  return "check the path and its permissions";
}

[[noreturn]] void fail(char const* doing, std::string const& path) {
  throw DataError(fmt::format("cannot {} {} ({}), {}", doing, path, reason(), advice()));
}

void sync(std::string const& path, int flags) {
  int const fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) fail("open", path);
  int const result = ::fsync(fd);
  int const error = errno;
  ::close(fd);
  errno = error;
  // Some network file systems cannot sync a folder; they order the rename themselves.
  bool const folder = (flags & O_DIRECTORY) != 0;
  if (result != 0 && !(folder && (error == EINVAL || error == ENOTSUP))) fail("sync", path);
}

}  // namespace

// Without waiting: nobody may ever write to a pipe of that name.
FileDescriptor::FileDescriptor(std::string const& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (fd_ < 0) fail("open", path);
  struct stat info {};
  if (::fstat(fd_, &info) == 0 && S_ISREG(info.st_mode)) return;
  ::close(fd_);
  throw DataError(fmt::format("cannot read {} (it is no regular file), name a file", path));
}

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) ::close(fd_);
}

FileDescriptor::FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

std::uint64_t FileDescriptor::size() const {
  struct stat info {};
  if (::fstat(fd_, &info) != 0) throw std::system_error(errno, std::generic_category(), "fstat");
  return static_cast<std::uint64_t>(info.st_size);
}

void FileDescriptor::will_read(std::uint64_t offset, std::size_t bytes) const {
  ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
}

std::size_t FileDescriptor::read_at(std::uint64_t offset, void* destination, std::size_t bytes) const {
  auto* const out = static_cast<char*>(destination);
  std::size_t done = 0;
  while (done < bytes) {
    ssize_t const got = ::pread(fd_, out + done, std::min(bytes - done, kMostPerCall), static_cast<off_t>(offset + done));
    if (got == 0) break;
    if (got > 0) {
      done += static_cast<std::size_t>(got);
    } else if (errno != EINTR) {
      throw std::system_error(errno, std::generic_category(), "pread");
    }
  }
  return done;
}

std::string read_text(std::string const& path) try {
  FileDescriptor const file(path);
  if (file.size() > kMostTextBytes)
    throw DataError(fmt::format("cannot read {} ({} bytes, {} are the most: damaged, or a file with holes), restore it", path, file.size(),
                                kMostTextBytes));
  std::string text(file.size(), '\0');
  text.resize(file.read_at(0, text.data(), text.size()));
  return text;
} catch (std::system_error const& error) {
  throw DataError(fmt::format("cannot read {} ({}), check the disk", path, error.what()));
}

std::string temporary_name(std::string const& path) { return fmt::format("{}.tmp-{}", path, ::getpid()); }

void require_space(std::string const& path, std::uint64_t bytes) {
  auto const folder = std::filesystem::path(path).parent_path();
  std::error_code unknown;
  auto const free = std::filesystem::space(folder.empty() ? "." : folder, unknown).available;
  auto const mib = [](std::uint64_t count) { return static_cast<double>(count) / (1 << 20); };
  if (!unknown && free < bytes)
    throw DataError(fmt::format("{}: the disk is full ({:.2f} MiB needed, {:.2f} MiB free, {:.2f} MiB missing), make room or choose "
                                "another folder",
                                path, mib(bytes), mib(free), mib(bytes - free)));
}

void sync_and_rename(std::string const& temporary, std::string const& path) {
  sync(temporary, O_RDONLY);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) fail("rename to", path);
  auto const folder = std::filesystem::path(path).parent_path();
  sync(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
}

void write_atomically(std::string const& path, std::string const& text) {
  auto const temporary = temporary_name(path);
  try {
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(temporary.c_str(), "wb"), &std::fclose);
    if (!file) fail("create", temporary);
    if (std::fwrite(text.data(), 1, text.size(), file.get()) != text.size()) fail("write", temporary);
    if (std::fclose(file.release()) != 0) fail("write", temporary);
    sync_and_rename(temporary, path);
  } catch (...) {
    std::remove(temporary.c_str());
    throw;
  }
}

std::uint64_t xxh3(void const* bytes, std::size_t count) { return XXH3_64bits(bytes, count); }

std::string hex16(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

std::string xxh3_hex(void const* bytes, std::size_t count) { return hex16(xxh3(bytes, count)); }

RunningXxh3::RunningXxh3() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  reset();
}

RunningXxh3::~RunningXxh3() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void RunningXxh3::add(void const* bytes, std::size_t count) { XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), bytes, count); }

std::uint64_t RunningXxh3::value() const { return XXH3_64bits_digest(static_cast<XXH3_state_t const*>(state_)); }

void RunningXxh3::reset() { XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_)); }

std::string xxh3_of_file(std::string const& path) try {
  FileDescriptor const file(path);
  RunningXxh3 hash;
  std::vector<char> buffer(std::size_t{1} << 20);
  std::uint64_t offset = 0;
  while (auto const got = file.read_at(offset, buffer.data(), buffer.size())) {
    hash.add(buffer.data(), got);
    offset += got;
  }
  return hex16(hash.value());
} catch (std::system_error const& error) {
  throw DataError(fmt::format("cannot read {} ({}), check the disk", path, error.what()));
}

}  // namespace duoflow::data
