#include "launch/progress.h"

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "launch/logging.h"

namespace duoflow::launch {

namespace {

// Seconds per step are a moving average with this memory: over the slow first steps after a minute, little moved by one
// checkpoint.
constexpr double memory_s = 30;

std::string number_text(double value, int digits) {
  return std::isfinite(value) ? fmt::format("{:.{}g}", value, digits) : "-";
}

}  // namespace

Progress::Progress(std::int64_t total, std::int64_t first) : total_(total), last_step_(first) {}
Progress::~Progress() { finish(); }

void Progress::update(std::int64_t step, double loss, double samples_per_s, std::string_view more,
                      std::chrono::steady_clock::time_point now) {
  if (step > last_step_) {
    auto const elapsed = std::chrono::duration<double>(now - last_time_).count();
    auto const measured = elapsed / static_cast<double>(step - last_step_);
    auto const share = seconds_per_step_ == 0 ? 1.0 : 1.0 - std::exp(-elapsed / memory_s);
    seconds_per_step_ += share * (measured - seconds_per_step_);
    last_step_ = step;
    last_time_ = now;
  }
  auto const left = seconds_per_step_ > 0 ? seconds_per_step_ * static_cast<double>(total_ - step)
                                          : std::numeric_limits<double>::quiet_NaN();
  auto const text = progress_text(step, total_, loss, samples_per_s, more, left);
  if (has_status_line()) {
    show_status(text);
    log_info_file_only(text);
  } else {
    log_info(text);
  }
}

void Progress::finish() { show_status(""); }

std::string progress_text(std::int64_t step, std::int64_t total, double loss, double samples_per_s,
                          std::string_view more, double seconds_left) {
  auto text = fmt::format("step {}/{}", step, total);
  if (total > 0) text += fmt::format("  {}%", 100 * step / total);
  text += fmt::format("  loss {}  {} samples/s", number_text(loss, 4), number_text(samples_per_s, 3));
  if (!more.empty()) text.append("  ").append(more);
  if (std::isfinite(seconds_left)) text += fmt::format("  {} left", duration_text(seconds_left));
  return text;
}

std::string duration_text(double seconds) {
  constexpr std::int64_t minute = 60, hour = 60 * minute, day = 24 * hour;
  auto const s = std::llround(std::fmax(seconds, 0));
  if (s < minute) return fmt::format("{}s", s);
  if (s < hour) return fmt::format("{}m{:02}s", s / minute, s % minute);
  auto const rounded = (s + minute / 2) / minute * minute;
  if (rounded < day) return fmt::format("{}h{:02}m", rounded / hour, rounded % hour / minute);
  auto const hours = (s + hour / 2) / hour;
  return fmt::format("{}d{:02}h", hours / 24, hours % 24);
}

}  // namespace duoflow::launch
