#include "launch/metrics_log.h"

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/file_io.h"
#include "launch/logging.h"

namespace duoflow::launch {

namespace {

std::runtime_error trouble(std::filesystem::path const& path, char const* what, int error) {
  return std::runtime_error(fmt::format("{}: cannot {} ({}); free space or choose another run folder.", path.string(),
                                        what, std::generic_category().message(error)));
}

struct KeptLines {
  std::string text;
  std::int64_t later = 0, unreadable = 0;
};

KeptLines lines_through(std::string_view text, std::int64_t last_step) {
  KeptLines kept;
  while (!text.empty()) {
    auto const line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    auto const object = nlohmann::json::parse(line, nullptr, false);
    if (!object.is_object() || !object.contains("step") || !object["step"].is_number_integer()) {
      ++kept.unreadable;
    } else if (object["step"].get<std::int64_t>() > last_step) {
      ++kept.later;
    } else {
      kept.text.append(line) += '\n';
    }
  }
  return kept;
}

void drop_lines_beyond(std::filesystem::path const& path, std::int64_t last_step) {
  if (!std::filesystem::is_regular_file(path)) return;
  constexpr std::uint64_t most_bytes = std::uint64_t{1} << 34;  // 30 million lines
  auto const text = dist::read_text_file(path.string(), most_bytes);
  auto const kept = lines_through(text, last_step);
  if (kept.text == text) return;
  dist::replace_text_file(path.string(), path.string() + ".tmp", kept.text);
  if (kept.later > 0) {
    log_info(fmt::format("{}: dropped {} line(s) of steps beyond {}", path.string(), kept.later, last_step));
  }
  if (kept.unreadable > 0) {
    log_warning(fmt::format("{}: dropped {} line(s) that are no record of a step (cut short by a crash?)",
                            path.string(), kept.unreadable));
  }
}

}  // namespace

MetricsLog::MetricsLog(std::filesystem::path path, std::int64_t keep_through_step) : path_(std::move(path)) {
  drop_lines_beyond(path_, keep_through_step);
  file_.reset(std::fopen(path_.c_str(), "ae"));
  if (!file_) throw trouble(path_, "open for appending", errno);
}

void MetricsLog::write(nlohmann::ordered_json const& line) {
  auto const text = line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + '\n';
  if (std::fwrite(text.data(), 1, text.size(), file_.get()) != text.size() || std::fflush(file_.get()) != 0) {
    throw trouble(path_, "append a line", errno);
  }
}

}  // namespace duoflow::launch
