#include "dist/statistics.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/thread_backend.h"

namespace duoflow::dist {
namespace {

TEST(StatisticsExchangeTest, SumsEverySlotOverTheRanks) {
  for (int ranks : {1, 2, 3, 4, 8}) {
    run_ranks(ranks, [](Communicator const& group) {
      StatisticsExchange exchange(group, 3, at::kCPU);
      for (int step = 1; step <= 2; ++step) {
        at::Tensor local = at::tensor(std::vector<double>{1.0 * step, 1.0 * group.rank(), 0.5});
        exchange.start(local);
        local.fill_(-1);  // the caller's tensor is its own again
        at::Tensor const sums = exchange.await();
        EXPECT_EQ(sums[0].item<double>(), step * group.size());
        EXPECT_EQ(sums[1].item<double>(), group.size() * (group.size() - 1) / 2);
        EXPECT_EQ(sums[2].item<double>(), 0.5 * group.size());
      }
    });
  }
}

TEST(StatisticsExchangeTest, AnInfiniteValueReachesEveryRank) {
  run_ranks(2, [](Communicator const& group) {
    StatisticsExchange exchange(group, 1, at::kCPU);
    exchange.start(at::full({1}, group.rank() == 1 ? INFINITY : 1.0, at::kDouble));
    EXPECT_TRUE(exchange.await().isinf().item<bool>());
  });
}

TEST(StatisticsExchangeTest, MisuseIsAnError) {
  StatisticsExchange exchange(Communicator(), 2, at::kCPU);
  EXPECT_THROW(exchange.await(), std::logic_error);
  EXPECT_THROW(exchange.start(at::zeros({3}, at::kDouble)), std::invalid_argument);
  EXPECT_THROW(exchange.start(at::zeros({2})), std::invalid_argument);
  exchange.start(at::zeros({2}, at::kDouble));
  EXPECT_THROW(exchange.start(at::zeros({2}, at::kDouble)), std::logic_error);
}

}  // namespace
}  // namespace duoflow::dist
