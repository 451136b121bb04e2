#include "data/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "data/error.h"
#include "data/file.h"

namespace duoflow::data {
namespace {

std::string writer() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return fmt::format("process {} on {}", ::getpid(), host.data());
}

// Whether the open file is still the one of that name: its last holder may have removed it before this lock was had.
bool is_current(int fd, std::string const& path) {
  struct stat mine {}, named {};
  return ::fstat(fd, &mine) == 0 && ::stat(path.c_str(), &named) == 0 && mine.st_ino == named.st_ino && mine.st_dev == named.st_dev;
}

}  // namespace

FolderLock::FolderLock(std::string const& folder, WithoutLocks without) : folder_(folder), path_(folder + "/writer.lock") {
  made_folder_ = std::filesystem::create_directories(folder);
  for (;;) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd_ < 0) { throw DataError(fmt::format("cannot make {} ({}), choose an output folder that may be written to", path_, std::strerror(errno))); }
    int result = 0;
    while ((result = ::flock(fd_, LOCK_EX | LOCK_NB)) != 0 && errno == EINTR) {}
    if (result != 0) {
      int const error = errno;
      if (error != EWOULDBLOCK && without == WithoutLocks::go_on) {
        held_ = false;
        return;
      }
      ::close(fd_);
      if (error != EWOULDBLOCK) { throw DataError(fmt::format("cannot lock {} ({}), choose a folder on a file system with locks", path_, std::strerror(error))); }
      std::string other = read_text(path_);
      throw DataError(fmt::format("{} is being written by {} (two writers would mix their files), wait for it or choose another folder", folder,
                                  other.empty() ? "another process" : other));
    }
    if (is_current(fd_, path_)) { break; }
    ::close(fd_);
  }
  std::string const text = writer();
  // For the other's message alone: not being able to write it harms nobody.
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, text.data(), text.size(), 0) < 0) { errno = 0; }
}

FolderLock::~FolderLock() {
  ::unlink(path_.c_str());  // while the lock is held
  if (made_folder_) { ::rmdir(folder_.c_str()); }  // fails, rightly, when something was written
  ::close(fd_);
}

}  // namespace duoflow::data
