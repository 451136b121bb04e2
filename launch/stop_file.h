#pragma once
// StopFile: a file that somebody makes to end a run (training.stop_file). Looked for once a second at most: asking a
// network file system in every step would cost more than the step's own bookkeeping.

#include <chrono>
#include <string>
#include <utility>

#include "dist/checkpoint/file_io.h"

namespace duoflow::launch {

class StopFile {
 public:
  explicit StopFile(std::string path) : path_(std::move(path)) {}  // "": none
  bool there() {
    auto const now = std::chrono::steady_clock::now();
    if (path_.empty() || now < next_look_) return there_;
    next_look_ = now + std::chrono::seconds(1);
    return there_ = there_ || dist::path_exists(path_);
  }

 private:
  std::string path_;
  std::chrono::steady_clock::time_point next_look_{};
  bool there_ = false;
};

}  // namespace duoflow::launch
