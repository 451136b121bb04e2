#include "launch/byte_progress.h"

#include <utility>

#include <fmt/format.h>

#include "launch/logging.h"
#include "launch/progress.h"

namespace duoflow::launch {
namespace {

std::string rate_text(std::uint64_t bytes, double seconds) {
  return fmt::format("{:.0f} MB/s", seconds > 0 ? 1e-6 * static_cast<double>(bytes) / seconds : 0);
}

double seconds_between(ByteProgress::Time from, ByteProgress::Time to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

ByteProgress::ByteProgress(std::string doing, Time now) : doing_(std::move(doing)), started_(now), shown_(now) {}

void ByteProgress::update(std::uint64_t done, std::uint64_t in_all, Time now) {
  done_ = done;
  if (seconds_between(shown_, now) < (has_status_line() ? 0.2 : 10)) return;
  shown_ = now;
  auto const text = doing_ + ": " + bytes_text(done, in_all, seconds_between(started_, now));
  if (has_status_line())
    show_status(text);
  else
    log_info(text);
}

void ByteProgress::finish(Time now) {
  show_status("");
  if (done_ == 0) return;
  auto const seconds = seconds_between(started_, now);
  log_info(fmt::format("{}: {:.2f} GB in {:.1f} s, {}", doing_, 1e-9 * static_cast<double>(done_), seconds,
                       rate_text(done_, seconds)));
}

std::string bytes_text(std::uint64_t done, std::uint64_t in_all, double seconds) {
  auto const d = static_cast<double>(done), all = static_cast<double>(in_all);
  auto text = fmt::format("{:.2f} of {:.2f} GB", 1e-9 * d, 1e-9 * all);
  if (in_all > 0) text += fmt::format("  {:.0f}%", 100 * d / all);
  text += "  " + rate_text(done, seconds);
  if (done > 0) text += fmt::format("  {} left", duration_text(seconds * (all - d) / d));
  return text;
}

}  // namespace duoflow::launch
