#pragma once
// StepTimes: where the host's time of a step goes. Each lap ends the stretch since the one before, so the parts sum to
// the step.
//
// On CUDA the host only launches kernels: its laps say where the host waits, not what the device does, and no split is
// reported. Of a replayed step (captured_update.h) there are only `data` and `other`.

#include <array>
#include <chrono>
#include <cstdint>
#include <string>

namespace duoflow::launch {

// `forward` ends where the statistics are sent; `backward` includes the editor's second forward when K > 1;
// `communication` is what the step waits for, not what is hidden behind the backward; `other` is the records and the
// log.
enum class Stage : std::size_t { data, forward, backward, communication, optimizer, other, count };

class StepTimes {
 public:
  void begin();
  void lap(Stage stage, double waited_ms = 0);  // waited_ms of the stretch were waiting for communication
  void end();              // adds the step to the means; the first step, which warms caches up, does not count
  double step_ms() const;  // since begin()
  double ms(Stage stage) const { return step_[static_cast<std::size_t>(stage)]; }  // of the present step so far
  std::int64_t steps() const { return steps_; }                                    // in the means
  // "data 0.2, forward 35.1, ... ms of 98.7", means over steps(); empty without any.
  std::string summary() const;

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kStages = static_cast<std::size_t>(Stage::count);
  Clock::time_point begun_{}, last_{};
  std::array<double, kStages> step_{}, sum_{};
  std::int64_t steps_ = -1;
};

}  // namespace duoflow::launch
