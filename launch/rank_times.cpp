#include "launch/rank_times.h"

#include <algorithm>

#include <fmt/format.h>

#include "launch/step_record.h"

namespace duoflow::launch {

void RankTimes::add(std::vector<double> const& statistics) {
  if (++steps_ == 0) return;
  for (std::size_t rank = 0; rank < sums_.size(); ++rank) {
    auto const* const times = &statistics[static_cast<std::size_t>(kFirstPerRank) + kPerRank * rank];
    sums_[rank].step_ms += times[kStepMs];
    sums_[rank].data_wait_ms += times[kDataWaitMs];
    sums_[rank].comm_wait_ms += times[kCommWaitMs];
  }
}

std::string RankTimes::summary(std::vector<std::string> const& hosts) const {
  if (steps_ <= 0 || sums_.size() < 2) return {};
  auto const by_own_time = [](Sum const& a, Sum const& b) { return a.own_ms() < b.own_ms(); };
  auto const [fastest, slowest] = std::minmax_element(sums_.begin(), sums_.end(), by_own_time);
  double const n = steps_;
  auto const name = [&](auto at) {
    auto const rank = static_cast<std::size_t>(at - sums_.begin());
    return fmt::format("{} on host {}", rank, hosts[rank]);
  };
  return fmt::format(
      "slowest rank: {}: step {:.2f} ms, of it waiting for data {:.2f} and for other ranks {:.2f}; the fastest, rank "
      "{}, waits "
      "{:.2f} ms for others (means of {} logged steps)",
      name(slowest), slowest->step_ms / n, slowest->data_wait_ms / n, slowest->comm_wait_ms / n, name(fastest),
      fastest->comm_wait_ms / n, steps_);
}

}  // namespace duoflow::launch
