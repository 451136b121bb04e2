#pragma once
// RankTimes: which rank the others wait for, from the times that travel with the statistics.

#include <string>
#include <vector>

namespace duoflow::launch {

class RankTimes {
 public:
  explicit RankTimes(int size) : sums_(static_cast<std::size_t>(size)) {}
  // The reduced statistics that carry a step's times (step_record.h). The first, which warms caches up, does not count.
  void add(std::vector<double> const& statistics);
  // "slowest rank: 1 on host b, ..."; "" on one rank or without a step. `hosts`: by rank.
  std::string summary(std::vector<std::string> const& hosts) const;

 private:
  struct Sum {
    double step_ms = 0, data_wait_ms = 0, comm_wait_ms = 0;
    double own_ms() const { return step_ms - comm_wait_ms; }
  };
  std::vector<Sum> sums_;
  int steps_ = -1;
};

}  // namespace duoflow::launch
