#include "launch/logging.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>

namespace duoflow::launch {

namespace {

void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    auto const written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno != EINTR) throw spdlog::spdlog_ex("cannot write a log line", errno);
    text.remove_prefix(written < 0 ? 0 : static_cast<std::size_t>(written));
  }
}

// stderr, with the status line kept below the log lines.
class TerminalSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  bool is_terminal() const { return is_terminal_; }

  void show_status(std::string_view text) {
    std::lock_guard lock(mutex_);
    status_ = text.substr(0, width());
    write_all(STDERR_FILENO, "\r\033[K" + status_);
  }

 protected:
  void sink_it_(spdlog::details::log_msg const& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    // One write, so that lines of several processes do not mix.
    std::string text(line.data(), line.size());
    if (!status_.empty()) text = "\r\033[K" + text + status_;
    write_all(STDERR_FILENO, text);
  }
  void flush_() override {}

 private:
  // A status wider than the terminal would wrap, and only its last row be replaced.
  static std::size_t width() {
    winsize window{};
    bool const known = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1;
    return known ? window.ws_col - 1u : 79u;
  }

  bool const is_terminal_ = isatty(STDERR_FILENO) == 1;
  std::string status_;
};

// Opened by the first line, so that ranks without a complaint hold no file; O_APPEND, because several may.
class FileSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit FileSink(std::filesystem::path path) : path_(std::move(path)) {}
  ~FileSink() override {
    if (descriptor_ >= 0) ::close(descriptor_);
  }

 protected:
  void sink_it_(spdlog::details::log_msg const& message) override {
    if (descriptor_ < 0) {
      if (path_.has_parent_path()) std::filesystem::create_directories(path_.parent_path());
      descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
      if (descriptor_ < 0) throw spdlog::spdlog_ex("cannot open " + path_.string(), errno);
    }
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    write_all(descriptor_, {line.data(), line.size()});
  }
  void flush_() override {}

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

// The two loggers share the file's sink; shared_ptr, because a thread may be logging while another names the file.
struct Log {
  int rank = 0, size = 1;
  std::shared_ptr<TerminalSink> terminal = std::make_shared<TerminalSink>();
  std::shared_ptr<spdlog::logger> everywhere, file_only;
};

std::shared_ptr<spdlog::logger> make_logger(Log const& log, std::vector<spdlog::sink_ptr> const& sinks) {
  auto logger = std::make_shared<spdlog::logger>("duoflow", sinks.begin(), sinks.end());
  auto const rank = log.size > 1 ? fmt::format("[rank {}/{}] ", log.rank, log.size) : std::string();
  logger->set_pattern("%Y-%m-%d %H:%M:%S " + rank + "%l: %v");
  logger->set_level(log.rank == 0 ? spdlog::level::info : spdlog::level::warn);
  return logger;
}

Log make_log(int rank, int size) {
  Log log;
  log.rank = rank;
  log.size = size;
  log.everywhere = make_logger(log, {log.terminal});
  log.file_only = make_logger(log, {});
  return log;
}

std::mutex current_mutex;  // guards what is current and log_once's keys; the sinks guard themselves

Log& current_slot() {
  static auto log = make_log(0, 1);
  return log;
}

Log current() {
  std::lock_guard lock(current_mutex);
  return current_slot();
}

}  // namespace

void start_logging(int rank, int size) {
  std::lock_guard lock(current_mutex);
  current_slot() = make_log(rank, size);
}

void log_to_file(std::filesystem::path const& path) {
  std::lock_guard lock(current_mutex);
  auto& log = current_slot();
  auto const file = std::make_shared<FileSink>(path);
  log.everywhere = make_logger(log, {log.terminal, file});
  log.file_only = make_logger(log, {file});
}

void log_info(std::string_view text) { current().everywhere->info(text); }
void log_warning(std::string_view text) { current().everywhere->warn(text); }
void log_error(std::string_view text) { current().everywhere->error(text); }

void log_once(LogLevel level, std::string_view key, std::string_view text) {
  static std::set<std::string, std::less<>> said;
  {
    std::lock_guard lock(current_mutex);
    if (!said.emplace(key).second) return;
  }
  switch (level) {
    case LogLevel::info: return log_info(text);
    case LogLevel::warning: return log_warning(text);
    case LogLevel::error: return log_error(text);
  }
}

bool has_status_line() {
  auto const log = current();
  return log.rank == 0 && log.terminal->is_terminal();
}

void show_status(std::string_view text) {
  if (has_status_line()) current().terminal->show_status(text);
}

void log_info_file_only(std::string_view text) { current().file_only->info(text); }

}  // namespace duoflow::launch
