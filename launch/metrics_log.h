#pragma once
// RUN/metrics.jsonl: one JSON object a line, each line on its way to the disk when write() returns. One process writes
// (rank 0). Numbers round-trip: a double is printed in the fewest digits that read back as the same double, and a float
// given as a double so reads back as the same float too. Non-finite numbers are null.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>

#include <nlohmann/json_fwd.hpp>

namespace duoflow::launch {

class MetricsLog {
 public:
  // Opens path for appending, made if missing. Lines of steps beyond keep_through_step are dropped first, as is a last
  // line that a crash cut short; the file is replaced in one rename, so a crash meanwhile loses nothing. A fresh run
  // passes 0 (or -1, if it logs a step 0). Throws std::runtime_error naming the file.
  MetricsLog(std::filesystem::path path, std::int64_t keep_through_step);

  // line has an integer "step". Throws std::runtime_error when it cannot be written.
  void write(nlohmann::ordered_json const& line);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace duoflow::launch
