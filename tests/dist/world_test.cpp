// The group of all ranks for CPU tensors, over MPI or TCP: under mpirun, and started by environment variables, at the
// rank counts that CMakeLists.txt names.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/error.h"
#include "dist/statistics.h"
#include "tests/dist/collective_cases.h"
#include "tests/dist/reduction_cases.h"
#include "tests/dist/world.h"

namespace duoflow::dist {
namespace {

Communicator group() { return world().communicator(Device::cpu); }

TEST(WorldTest, EveryCollectiveFollowsItsClosedForm) { expect_all_collectives(group()); }

TEST(WorldTest, LargeTensorsToo) { expect_collectives_follow_closed_forms(group(), at::kLong, 300001); }

TEST(WorldTest, LargeSumsKeepTheirOrderWhenRanksAreLate) { expect_large_sums_keep_their_order(group()); }

TEST(WorldTest, StringsOfAnyLengthAreGathered) { expect_strings_are_gathered(group()); }

TEST(WorldTest, ManyCollectivesUnderWayKeepTheirOrder) {
  std::vector<at::Tensor> tensors;
  std::vector<Pending> pending;
  for (int i = 0; i < 40; ++i) {
    tensors.push_back(at::full({1 + i * 997}, group().rank() + i, at::kDouble));
  }
  for (at::Tensor const& tensor : tensors) {
    pending.push_back(all_reduce(group(), tensor));
  }
  int const ranks = group().size();
  for (int i = 39; i >= 0; --i) {
    pending[static_cast<std::size_t>(i)].wait();
    double const expected = ranks * (ranks - 1) / 2 + ranks * i;
    EXPECT_TRUE(at::equal(tensors[static_cast<std::size_t>(i)], at::full({1 + i * 997}, expected, at::kDouble)));
  }
}

TEST(WorldTest, ATensorMayBeDroppedBeforeItsCollectiveIsComplete) {
  Pending pending;
  {
    at::Tensor const tensor = at::ones({100000});
    pending = all_reduce(group(), tensor);
  }
  pending.wait();
}

TEST(WorldTest, SummedGradientEqualsFullBatchGradient) {
  for (int micro_steps : {1, 3}) {
    expect_sum_over_ranks_equals_full_batch(group(), micro_steps, 1e-6);
    expect_sum_over_ranks_equals_full_batch(group(), micro_steps, 25);
  }
}

TEST(WorldTest, StatisticsAreSummed) {
  StatisticsExchange exchange(group(), 2, at::kCPU);
  exchange.start(at::full({2}, group().rank() + 0.25, at::kDouble));
  double const ranks = group().size();
  EXPECT_EQ(exchange.await()[1].item<double>(), ranks * (ranks - 1) / 2 + 0.25 * ranks);
}

TEST(WorldTest, DifferentParametersAreNamedOnEveryRank) {
  bool const differs = group().rank() == 1;
  std::vector<TrainableParameter> parameters{{"weight", at::zeros({differs ? 3 : 2}).requires_grad_(), 0}};
  FlatBuffer buffer(parameters);
  if (group().size() == 1) {
    EXPECT_NO_THROW(agree_on_parameters(group(), buffer));
  } else {
    EXPECT_THROW(agree_on_parameters(group(), buffer), PeerError);
  }
}

TEST(RuntimeTest, RanksAreCountedAndTheGroupIsMadeOnce) {
  EXPECT_EQ(world().size(), group().size());
  EXPECT_EQ(world().rank(), group().rank());
  EXPECT_EQ(world().rank(), world().local_rank());  // one host
  EXPECT_FALSE(world().host().empty());
  EXPECT_EQ(group().transport(), group().transport());
  EXPECT_EQ(group().transport() == nullptr, world().size() == 1);
}

}  // namespace
}  // namespace duoflow::dist
