#include "launch/step_times.h"

#include <numeric>

#include <fmt/format.h>

namespace duoflow::launch {
namespace {

constexpr std::array<char const*, static_cast<std::size_t>(Stage::count)> kNames = {
    "data", "forward", "backward", "exposed communication", "optimizer", "other"};

double ms_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

}  // namespace

void StepTimes::begin() {
  step_.fill(0);
  begun_ = last_ = Clock::now();
}

void StepTimes::lap(Stage stage, double waited_ms) {
  auto const now = Clock::now();
  step_[static_cast<std::size_t>(stage)] += ms_between(last_, now) - waited_ms;
  step_[static_cast<std::size_t>(Stage::communication)] += waited_ms;
  last_ = now;
}

void StepTimes::end() {
  if (++steps_ == 0) return;
  for (std::size_t i = 0; i < kStages; ++i) sum_[i] += step_[i];
}

double StepTimes::step_ms() const { return ms_between(begun_, Clock::now()); }

std::string StepTimes::summary() const {
  if (steps_ <= 0) return {};
  auto const n = static_cast<double>(steps_);
  std::string text;
  for (std::size_t i = 0; i < kStages; ++i)
    text += fmt::format("{}{} {:.2f}", i == 0 ? "" : ", ", kNames[i], sum_[i] / n);
  return fmt::format("{} ms of {:.2f}", text, std::accumulate(sum_.begin(), sum_.end(), 0.0) / n);
}

}  // namespace duoflow::launch
