#pragma once
// The progress of a long command, for a person: on a terminal one line rewritten in place, in pipes and the log file a
// plain line at every update. Only rank 0 shows anything.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace duoflow::launch {

class Progress {
 public:
  // total: the step at which the command ends; first: the step this process begins at (above 0 after a resume).
  Progress(std::int64_t total, std::int64_t first);
  ~Progress();
  Progress(Progress const&) = delete;
  Progress& operator=(Progress const&) = delete;

  // Called at any interval with the last finished step. The time left comes from the speed of the recent steps by the
  // clock `now`. more: shown as it is, for example "psnr 21.30".
  void update(std::int64_t step, double loss, double samples_per_s, std::string_view more = {},
              std::chrono::steady_clock::time_point now = std::chrono::steady_clock::now());
  void finish();  // leaves the terminal's line empty; the destructor does it too

 private:
  std::int64_t total_, last_step_;
  std::chrono::steady_clock::time_point last_time_ = std::chrono::steady_clock::now();
  double seconds_per_step_ = 0;  // 0: not known yet
};

// "step 120/2000  6%  loss 0.1234  52.1 samples/s  psnr 21.30  12m05s left". A loss or speed that is not finite reads
// "-"; a time that is not finite is left out.
std::string progress_text(std::int64_t step, std::int64_t total, double loss, double samples_per_s,
                          std::string_view more, double seconds_left);
// "8s", "12m05s", "3h07m", "2d04h"; rounded to the last unit shown.
std::string duration_text(double seconds);

}  // namespace duoflow::launch
