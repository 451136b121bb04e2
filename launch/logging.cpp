// Written out rather than with spdlog: Debian's is built on fmt 9, while LibTorch's include folder puts fmt 12 first.
#include "launch/logging.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <system_error>

namespace duoflow::launch {

namespace {

constexpr std::string_view clear_line = "\r\033[K";

void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    auto const written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno != EINTR) throw std::system_error(errno, std::generic_category());
    text.remove_prefix(written < 0 ? 0 : static_cast<std::size_t>(written));
  }
}

// stderr has nobody to tell of its own failure.
void write_stderr(std::string const& text) try { write_all(STDERR_FILENO, text); } catch (std::system_error const&) {
}

std::string local_time_text() {
  auto const now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 32> text{};
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S ", &local)};
}

class Log {
 public:
  Log() { start(0, 1); }
  ~Log() { close_file(); }
  Log(Log const&) = delete;
  Log& operator=(Log const&) = delete;

  void start(int rank, int size) {
    std::lock_guard const lock(mutex_);
    rank_ = rank;
    prefix_ = size > 1 ? "[rank " + std::to_string(rank) + "/" + std::to_string(size) + "] " : "";
    status_.clear();
    has_status_ = rank == 0 && isatty(STDERR_FILENO) == 1;
    close_file();
    path_.clear();
  }

  void name_file(std::filesystem::path const& path) {
    std::lock_guard const lock(mutex_);
    close_file();
    path_ = path;
  }

  void line(LogLevel level, std::string_view text, bool on_stderr = true) {
    std::lock_guard const lock(mutex_);
    if (rank_ != 0 && level == LogLevel::info) return;
    auto line = local_time_text() + prefix_;
    line.append(level_name(level)).append(": ").append(text) += '\n';
    if (on_stderr) put_above_status(line);
    if (!path_.empty()) append_to_file(line);
  }

  bool first_with(std::string_view key) {
    std::lock_guard const lock(mutex_);
    return said_.emplace(key).second;
  }

  bool has_status() const {
    std::lock_guard const lock(mutex_);
    return has_status_;
  }

  void show_status(std::string_view text) {
    std::lock_guard const lock(mutex_);
    if (!has_status_) return;
    status_ = text.substr(0, width());
    write_stderr(std::string(clear_line) + status_);
  }

 private:
  static std::string_view level_name(LogLevel level) {
    switch (level) {
      case LogLevel::info:
        return "info";
      case LogLevel::warning:
        return "warning";
      case LogLevel::error:
        return "error";
    }
    return "error";
  }

  // A status wider than the terminal would wrap, and only its last row be replaced.
  static std::size_t width() {
    winsize window{};
    bool const known = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1;
    return known ? window.ws_col - 1u : 79u;
  }

  // One write each, so that the lines of several processes do not mix.
  void put_above_status(std::string const& line) const {
    write_stderr(status_.empty() ? line : std::string(clear_line) + line + status_);
  }

  // Opened by the first line, so that ranks without a complaint hold no file; O_APPEND, because several may.
  void append_to_file(std::string const& line) try {
    if (file_ < 0) {
      if (path_.has_parent_path()) std::filesystem::create_directories(path_.parent_path());
      file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
      if (file_ < 0) throw std::system_error(errno, std::generic_category());
    }
    write_all(file_, line);
    file_works_ = true;
  } catch (std::system_error const& error) {
    if (file_works_) {
      put_above_status(local_time_text() + prefix_ + "warning: " + path_.string() + ": the log's lines are lost (" +
                       error.what() + "); free space or choose another run folder.\n");
    }
    file_works_ = false;
  }

  void close_file() {
    if (file_ >= 0) ::close(file_);
    file_ = -1;
    file_works_ = true;
  }

  mutable std::mutex mutex_;
  int rank_ = 0;
  std::string prefix_, status_;
  bool has_status_ = false;
  std::filesystem::path path_;
  int file_ = -1;
  bool file_works_ = true;  // as of the last line; its failure is told once
  std::set<std::string, std::less<>> said_;
};

Log& log() {
  static Log instance;
  return instance;
}

}  // namespace

void start_logging(int rank, int size) { log().start(rank, size); }
void log_to_file(std::filesystem::path const& path) { log().name_file(path); }

void log_info(std::string_view text) { log().line(LogLevel::info, text); }
void log_warning(std::string_view text) { log().line(LogLevel::warning, text); }
void log_error(std::string_view text) { log().line(LogLevel::error, text); }
void log_once(LogLevel level, std::string_view key, std::string_view text) {
  if (log().first_with(key)) log().line(level, text);
}

bool has_status_line() { return log().has_status(); }
void show_status(std::string_view text) { log().show_status(text); }
void log_info_file_only(std::string_view text) { log().line(LogLevel::info, text, false); }

}  // namespace duoflow::launch
