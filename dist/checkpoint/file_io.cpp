#include "dist/checkpoint/file_io.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "dist/error.h"

namespace duoflow::dist {
namespace {

// Linux moves at most 0x7ffff000 bytes a call.
constexpr std::size_t transfer_bytes = std::size_t{1} << 30;
constexpr std::uint64_t writeback_bytes = 4 << 20;

FaultHook& fault_hook() {
  static FaultHook hook;
  return hook;
}

[[noreturn]] void fail(std::string const& call, std::string const& path, int error) {
  throw CheckpointError(
      fmt::format("{}: cannot {} ({}, errno {})", path, call, std::generic_category().message(error), error));
}

// Runs a system call that returns -1 on failure, again when a signal interrupted it.
template <typename Call>
auto retried(Call const& call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

void announce(FileOperation operation, char const* what, std::string const& path) {
  auto const& hook = fault_hook();
  if (int const error = hook ? hook(operation, path) : 0) fail(what, path, error);
}

template <typename Call>
auto checked(FileOperation operation, char const* what, std::string const& path, Call const& call) {
  announce(operation, what, path);
  auto const result = retried(call);
  if (result < 0) fail(what, path, errno);
  return result;
}

int open_for_reading(std::string const& path, int flags) {
  int const descriptor = retried([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags); });
  if (descriptor < 0) fail("open", path, errno);
  return descriptor;
}

bool is_folder(std::string const& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

void make_folder(std::string const& path) {
  announce(FileOperation::make_folder, "make folder", path);
  if (::mkdir(path.c_str(), 0777) != 0) {
    int const error = errno;  // another process may have made it meanwhile
    if (!is_folder(path)) fail("make folder", path, error);
  }
  sync_folder(parent_folder(path));
}

}  // namespace

void set_fault_hook(FaultHook hook) { fault_hook() = std::move(hook); }

OutputFile::OutputFile(std::string path) : path_(std::move(path)) {
  descriptor_ = checked(FileOperation::open, "create", path_,
                        [&] { return ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666); });
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(void const* data, std::size_t bytes) {
  auto const* next = static_cast<char const*>(data);
  while (bytes > 0) {
    auto const written = checked(FileOperation::write, "write", path_,
                                 [&] { return ::write(descriptor_, next, std::min(bytes, transfer_bytes)); });
    next += written;
    bytes -= static_cast<std::size_t>(written);
    written_ += static_cast<std::uint64_t>(written);
  }
  if (written_ - handed_over_ >= writeback_bytes) start_writeback();
}

// The disk begins while more is hashed and copied, rather than at the sync. Only a hint: where it fails nothing is lost.
void OutputFile::start_writeback() {
#ifdef SYNC_FILE_RANGE_WRITE
  ::sync_file_range(descriptor_, static_cast<off64_t>(handed_over_), static_cast<off64_t>(written_ - handed_over_),
                    SYNC_FILE_RANGE_WRITE);
#endif
  handed_over_ = written_;
}

void OutputFile::finish() {
  checked(FileOperation::sync, "sync", path_, [&] { return ::fsync(descriptor_); });
  // Some network file systems report a full disk only here. Not retried: on Linux the descriptor is gone either way.
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) fail("close", path_, errno);
}

InputFile::InputFile(std::string path) : path_(std::move(path)) {
  descriptor_ = open_for_reading(path_, O_NONBLOCK);  // nobody may ever write to a pipe of that name
  struct stat status {};
  int const error = ::fstat(descriptor_, &status) == 0 ? (S_ISREG(status.st_mode) ? 0 : EINVAL) : errno;
  if (error != 0) {
    ::close(descriptor_);
    fail("read as a file", path_, error);
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::read(void* data, std::size_t bytes) {
  auto* next = static_cast<char*>(data);
  while (bytes > 0) {
    auto const got = retried([&] { return ::read(descriptor_, next, std::min(bytes, transfer_bytes)); });
    if (got < 0) fail("read", path_, errno);
    if (got == 0) {
      throw CheckpointError(
          fmt::format("{}: ends after {} bytes, {} more expected (cut short)", path_, position_, bytes));
    }
    next += got;
    bytes -= static_cast<std::size_t>(got);
    position_ += static_cast<std::uint64_t>(got);
  }
}

std::string read_text_file(std::string const& path, std::uint64_t most_bytes) {
  InputFile file(path);
  if (file.size() > most_bytes) {
    throw CheckpointError(fmt::format("{}: {} bytes (at most {} can be meant: damaged), restore or remove it", path,
                                      file.size(), most_bytes));
  }
  std::string text(file.size(), '\0');
  file.read(text.data(), text.size());
  return text;
}

void write_text_file(std::string const& path, std::string const& text) {
  OutputFile file(path);
  file.write(text.data(), text.size());
  file.finish();
}

void replace_text_file(std::string const& path, std::string const& temporary, std::string const& text) {
  write_text_file(temporary, text);
  rename_path(temporary, path);
  sync_folder(parent_folder(path));
}

bool path_exists(std::string const& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) return true;
  if (errno != ENOENT && errno != ENOTDIR) fail("look at", path, errno);
  return false;
}

void make_folders(std::string const& path) {
  if (is_folder(path)) return;
  std::string const parent = parent_folder(path);
  if (parent != path) make_folders(parent);
  make_folder(path);
}

void sync_folder(std::string const& path) {
  int const descriptor = open_for_reading(path, O_DIRECTORY);
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } const closer{descriptor};
  checked(FileOperation::sync_folder, "sync folder", path, [&] { return ::fsync(descriptor); });
}

void rename_path(std::string const& from, std::string const& to) {
  checked(FileOperation::rename, "be renamed to", to, [&] { return ::rename(from.c_str(), to.c_str()); });
}

void swap_folders(std::string const& from, std::string const& to, std::string const& aside) {
  auto const& hook = fault_hook();
  int error = hook ? hook(FileOperation::rename, to) : 0;
  if (error == 0 && ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) error = errno;
  if (error == 0) return;
  if (error != EINVAL && error != ENOSYS) fail("swap in", to, error);
  rename_path(to, aside);
  try {
    rename_path(from, to);
  } catch (CheckpointError const&) {
    rename_path(aside, to);
    throw;
  }
  rename_path(aside, from);
}

void remove_tree(std::string const& path) {
  announce(FileOperation::remove, "remove", path);
  auto const remove_one = [](char const* name, struct stat const*, int, FTW*) { return ::remove(name); };
  if (::nftw(path.c_str(), remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) fail("remove", path, errno);
}

std::vector<std::string> list_folder(std::string const& path) {
  std::vector<std::string> names;
  if (!path_exists(path)) return names;
  std::unique_ptr<DIR, int (*)(DIR*)> const folder(::opendir(path.c_str()), &::closedir);
  if (!folder) fail("list", path, errno);
  for (;;) {
    errno = 0;
    dirent const* entry = ::readdir(folder.get());
    if (entry == nullptr) break;
    if (std::string name = entry->d_name; name != "." && name != "..") names.push_back(std::move(name));
  }
  if (errno != 0) fail("list", path, errno);
  std::sort(names.begin(), names.end());
  return names;
}

std::string parent_folder(std::string const& path) {
  auto const last = path.find_last_not_of('/');
  auto const slash = last == std::string::npos ? 0 : path.rfind('/', last);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace duoflow::dist
