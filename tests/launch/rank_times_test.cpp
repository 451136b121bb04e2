#include "launch/rank_times.h"

#include <gtest/gtest.h>

#include "launch/step_record.h"

namespace duoflow::launch {
namespace {

std::vector<double> times(std::vector<double> const& comm_wait_ms) {
  auto const size = static_cast<int>(comm_wait_ms.size());
  std::vector<double> statistics(static_cast<std::size_t>(statistic_slots(size)), 0);
  for (std::size_t rank = 0; rank < comm_wait_ms.size(); ++rank) {
    auto* const mine = &statistics[static_cast<std::size_t>(kFirstPerRank) + kPerRank * rank];
    mine[kStepMs] = 100, mine[kDataWaitMs] = 1 + static_cast<double>(rank), mine[kCommWaitMs] = comm_wait_ms[rank];
  }
  return statistics;
}

TEST(RankTimesTest, TheSlowestIsTheOneThatWaitsLeastAndTheFirstStepDoesNotCount) {
  RankTimes ranks(3);
  ranks.add(times({0, 90, 90}));
  EXPECT_EQ(ranks.summary({"a", "a", "b"}), "");
  ranks.add(times({40, 20, 5}));
  ranks.add(times({50, 10, 15}));
  EXPECT_EQ(
      ranks.summary({"a", "a", "b"}),
      "slowest rank: 2 on host b: step 100.00 ms, of it waiting for data 3.00 and for other ranks 10.00; the fastest, "
      "rank 0 on host a, waits 45.00 ms for others (means of 2 logged steps)");
}

TEST(RankTimesTest, OneRankHasNobodyToWaitFor) {
  RankTimes ranks(1);
  ranks.add(times({0}));
  ranks.add(times({0}));
  EXPECT_EQ(ranks.summary({"a"}), "");
}

}  // namespace
}  // namespace duoflow::launch
