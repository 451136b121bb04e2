#pragma once
// How far a command is that works through a known number of bytes: on a terminal one line rewritten in place, else a
// plain line every ten seconds, and at the end one with the whole. Not thread-safe.

#include <chrono>
#include <cstdint>
#include <string>

namespace duoflow::launch {

class ByteProgress {
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit ByteProgress(std::string doing, Time now = std::chrono::steady_clock::now());  // "verify"

  void update(std::uint64_t done, std::uint64_t in_all, Time now = std::chrono::steady_clock::now());
  void finish(Time now = std::chrono::steady_clock::now());  // says nothing when there was nothing to do

 private:
  std::string doing_;
  Time started_, shown_;
  std::uint64_t done_ = 0;
};

// "1.20 of 4.80 GB  25%  600 MB/s  6s left"; the time is left out where nothing is done yet.
std::string bytes_text(std::uint64_t done, std::uint64_t in_all, double seconds);

}  // namespace duoflow::launch
