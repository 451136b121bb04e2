#pragma once
// StageTimeline: where the time of a step goes, between the named scopes that the step's own code opens
// (RECORD_USER_SCOPE in model/ and launch/). Between two marks the innermost open scope is at work, or "other": so the
// stages of a step sum to the step. On CUDA the marks are events on the current stream, so a stage is the device's time
// and what the device waits for the host shows in the stage that it waits in.

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/Device.h>
#include <c10/core/Event.h>

namespace duoflow::launch {

class StageTimeline {
 public:
  explicit StageTimeline(c10::Device device) : device_(device) {}

  c10::Device device() const { return device_; }
  void begin_step();
  void end_step();  // on CUDA waits for the device

  void enter(std::string const& stage);
  void leave();
  // The innermost open scope. Any thread.
  static char const* current();
  // Whether a scope is open whose name ends in " again": what is done there was done before in the step. Any thread.
  static bool again();

  std::vector<std::string> const& stages() const { return order_; }  // as they first came, "other" last
  double ms(std::string const& stage) const;                         // mean over the steps
  double step_ms() const;                                            // mean, by the same clock
  double host_ms() const { return steps_ == 0 ? 0 : host_ms_ / static_cast<double>(steps_); }  // by the host's
  std::int64_t steps() const { return steps_; }

 private:
  struct Mark {
    std::chrono::steady_clock::time_point host;
    std::optional<c10::Event> device;
    std::string stage;  // from here on
  };
  void mark();

  c10::Device device_;
  std::vector<std::string> open_, order_;
  std::vector<Mark> marks_;
  std::map<std::string, double> sum_ms_;
  double host_ms_ = 0;
  std::int64_t steps_ = 0;
};

// While it lives the user scopes of the whole process go to this timeline, and of a CUDA device to NVTX, where Nsight
// finds them. One at a time.
class StageObserver {
 public:
  explicit StageObserver(StageTimeline& timeline);
  ~StageObserver();
  StageObserver(StageObserver const&) = delete;

 private:
  std::uint64_t handle_;
};

}  // namespace duoflow::launch
