#include "dist/gradient_reducer.h"

#include <stdexcept>

#include "dist/thread_backend.h"
#include "tests/dist/reduction_cases.h"

namespace duoflow::dist {
namespace {

constexpr double tiny = 1e-6;  // MiB: every parameter is its own bucket
constexpr double large = 25;   // one bucket for everything

// Counts and orders the collectives of a world of one.
class TracingTransport : public Transport {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string name() const override { return "trace"; }
  Pending all_reduce(at::Tensor tensor, ReduceOp) override {
    reduced.push_back(tensor);
    return Pending();
  }
  Pending reduce_scatter(at::Tensor, at::Tensor) override { throw std::logic_error("not used here"); }
  Pending all_gather(at::Tensor, at::Tensor) override { throw std::logic_error("not used here"); }
  Pending all_to_all(at::Tensor, at::Tensor) override { throw std::logic_error("not used here"); }
  Pending broadcast(at::Tensor, int) override { throw std::logic_error("not used here"); }
  void barrier() override {}
  std::vector<at::Tensor> reduced;
};

struct Traced {
  std::shared_ptr<TracingTransport> transport = std::make_shared<TracingTransport>();
  SmallModel model;
  FlatBuffer buffer;
  GradientReducer reducer;
  explicit Traced(double mib) : buffer(model.parameters, {mib, mib, 1}), reducer(Communicator(transport), buffer) {}
  void backward() { torch::autograd::backward({model.loss(small_batch(3))}, {}); }
};

std::string message_of(std::function<void()> const& call) {
  try {
    call();
  } catch (std::exception const& error) {
    return error.what();
  }
  return "";
}

TEST(GradientReducerTest, SummedGradientEqualsFullBatchGradient) {
  for (int ranks : {1, 2, 3, 4, 8}) {
    for (int micro_steps : {1, 3}) {
      for (double mib : {tiny, large}) {
        run_ranks(ranks,
                  [&](Communicator const& group) { expect_sum_over_ranks_equals_full_batch(group, micro_steps, mib); });
      }
    }
  }
  expect_sum_over_ranks_equals_full_batch(Communicator(), 3, tiny);
}

TEST(GradientReducerTest, AnUpdateCostsOneReductionHoweverManyMicroStepsItHas) {
  for (int micro_steps : {1, 3}) {
    Traced traced(tiny);
    EXPECT_EQ(traced.reducer.bucket_count(), 5);
    for (int update = 1; update <= 2; ++update) {
      traced.reducer.zero();
      for (int i = 1; i < micro_steps; ++i) {
        traced.backward();
      }
      traced.reducer.arm(used_by_small_model());
      traced.backward();
      traced.reducer.finish();
      EXPECT_EQ(traced.reducer.collectives_started(), 4 * update);  // the bucket of "unused" is not reduced
      EXPECT_EQ(traced.transport->reduced.size(), static_cast<std::size_t>(4 * update));
    }
  }
}

TEST(GradientReducerTest, BucketsStartInIndexOrderAndCoverAlignedRanges) {
  Traced traced(tiny);
  traced.reducer.arm(used_by_small_model());
  traced.backward();
  traced.reducer.finish();
  float const* previous = nullptr;
  for (at::Tensor const& bucket : traced.transport->reduced) {
    EXPECT_EQ(bucket.numel() % 16, 0);
    EXPECT_GT(bucket.data_ptr<float>(), previous);
    previous = bucket.data_ptr<float>();
  }
  Traced single(large);
  single.reducer.arm(used_by_small_model());
  single.backward();
  single.reducer.finish();
  ASSERT_EQ(single.transport->reduced.size(), 1U);
  EXPECT_EQ(single.transport->reduced[0].numel(), single.buffer.size());
}

TEST(GradientReducerTest, BucketsStartWhileTheBackwardStillRuns) {
  Traced traced(tiny);
  std::size_t started_before_the_end = 0;
  at::Tensor const x = small_batch(3).requires_grad_();  // its gradient is the last thing that the backward computes
  x.register_hook([&](at::Tensor const& gradient) {
    started_before_the_end = traced.transport->reduced.size();
    return gradient;
  });
  traced.reducer.arm(used_by_small_model());
  torch::autograd::backward({traced.model.loss(x)}, {});
  traced.reducer.finish();
  EXPECT_GE(started_before_the_end, 2U);  // "last" and "shared" at least
}

TEST(GradientReducerTest, AMissingGradientIsNamed) {
  Traced traced(tiny);
  traced.reducer.arm();  // all parameters, also "unused"
  traced.backward();
  EXPECT_EQ(
      message_of([&] { traced.reducer.finish(); }),
      "no gradient arrived for unused on rank 0 (declared as used in this update), take it out of the used set or "
      "out of the trainable parameters");
}

TEST(GradientReducerTest, AParameterOutsideTheUsedSetIsLeftUntouched) {
  Traced traced(tiny);
  traced.reducer.arm({"last"});
  traced.backward();
  traced.reducer.finish();
  ASSERT_EQ(traced.transport->reduced.size(), 1U);
  EXPECT_EQ(traced.transport->reduced[0].numel(), 16);
}

TEST(GradientReducerTest, TwoBackwardsOfOneUpdateFillItTogether) {
  Traced traced(tiny);
  at::Tensor const cut = at::ones({2, 6}).requires_grad_();
  traced.reducer.arm({"last", "first"});
  torch::autograd::backward({at::linear(cut, traced.model.get("last")).sum()}, {});
  EXPECT_EQ(traced.transport->reduced.size(), 1U);
  torch::autograd::backward({at::linear(at::ones({2, 5}), traced.model.get("first")).sum()}, {});
  traced.reducer.finish();
  EXPECT_EQ(traced.transport->reduced.size(), 2U);
}

TEST(GradientReducerTest, AGradientThatGrowsAfterItsBucketLeftIsAnError) {
  Traced traced(tiny);
  traced.reducer.arm({"last"});
  torch::autograd::backward({traced.model.get("last").sum()}, {});
  torch::autograd::backward({traced.model.get("last").sum()}, {});
  EXPECT_NE(message_of([&] { traced.reducer.finish(); }).find("the gradient of last grew"), std::string::npos);
}

TEST(GradientReducerTest, AReplacedGradientIsNamed) {
  Traced traced(tiny);
  traced.model.get("norm").mutable_grad() = at::zeros({6});
  traced.reducer.arm(used_by_small_model());
  traced.backward();
  EXPECT_NE(message_of([&] { traced.reducer.finish(); }).find("the gradient of norm is no longer"), std::string::npos);
}

TEST(GradientReducerTest, MisuseIsAnError) {
  Traced traced(tiny);
  EXPECT_THROW(traced.reducer.finish(), std::logic_error);
  EXPECT_NE(message_of([&] { traced.reducer.arm({"nobody"}); }).find("nobody"), std::string::npos);
  traced.reducer.arm();
  EXPECT_THROW(traced.reducer.arm(), std::logic_error);
  EXPECT_THROW(traced.reducer.zero(), std::logic_error);
}

TEST(GradientReducerTest, NothingHappensAfterTheReducerIsGone) {
  SmallModel const model;
  FlatBuffer buffer(model.parameters);
  { GradientReducer const reducer(Communicator(), buffer); }
  torch::autograd::backward({model.loss(small_batch(2))}, {});
  EXPECT_GT(buffer.gradients().abs().sum().item<float>(), 0);
}

TEST(GradientReducerTest, ARankThatFailsInItsBackwardReleasesTheOthers) {
  auto const body = [](Communicator const& group) {
    SmallModel const model;
    FlatBuffer buffer(model.parameters, {tiny, tiny, 1});
    GradientReducer reducer(group, buffer);
    reducer.arm(used_by_small_model());
    if (group.rank() == 1) {
      throw std::runtime_error("no memory left");
    }
    torch::autograd::backward({model.loss(small_batch(2))}, {});
    EXPECT_NE(message_of([&] { reducer.finish(); }).find("rank 1 failed (no memory left)"), std::string::npos);
  };
  EXPECT_EQ(message_of([&] { run_ranks(3, body); }), "rank 1: no memory left");
}

// What every rank count must give, bit for bit: the gradients of eight shards of two samples, summed along the tree.
std::map<std::string, at::Tensor> tree_gradients() {
  std::vector<std::map<std::string, at::Tensor>> shards;
  for (std::int64_t shard = 0; shard < 8; ++shard) {
    SmallModel const model;
    torch::autograd::backward({model.loss(small_batch(16).narrow(0, 2 * shard, 2))}, {});
    for (std::string const& name : used_by_small_model()) shards.emplace_back()[name] = model.get(name).grad();
  }
  std::map<std::string, at::Tensor> sums;
  for (std::string const& name : used_by_small_model()) {
    std::vector<at::Tensor> level;
    for (auto const& shard : shards)
      if (shard.count(name) > 0) level.push_back(shard.at(name));
    for (; level.size() > 1;) {
      std::vector<at::Tensor> next;
      for (std::size_t i = 0; i < level.size(); i += 2) next.push_back(level[i] + level[i + 1]);
      level = next;
    }
    sums[name] = level.front();
  }
  return sums;
}

TEST(GradientReducerTest, ReproducibleSumsHaveTheBitsOfTheTreeAtAnyRankCountShardedOrNot) {
  auto const expected = tree_gradients();
  for (int ranks : {1, 2, 4, 8}) {
    for (bool const sharded : {false, true}) {
      for (double const mib : {tiny, large}) {
        run_ranks(ranks, [&](Communicator const& group) {
          SmallModel const model;
          FlatBuffer buffer(model.parameters, {mib, mib, 8});
          std::int64_t const shards = 8 / ranks;
          GradientReducer reducer(group, buffer, {sharded, true, shards});
          for (int update = 0; update < 2; ++update) {
            reducer.zero();
            for (std::int64_t k = 0; k < shards; ++k) {
              if (k + 1 == shards) reducer.arm(used_by_small_model());
              auto const first = 2 * (group.rank() * shards + k);
              torch::autograd::backward({model.loss(small_batch(16).narrow(0, first, 2))}, {});
              if (k + 1 < shards) reducer.shard_done(k, used_by_small_model());
            }
            reducer.finish();
          }
          at::Tensor all = reducer.own_gradients();
          if (sharded) {
            all = at::empty({buffer.size()});
            for (BucketRange const& bucket : buffer.buckets()) {
              auto const size = bucket.end - bucket.begin;
              all_gather(group, all.narrow(0, bucket.begin, size),
                         reducer.own_gradients().narrow(0, bucket.begin / ranks, size / ranks))
                  .wait();
            }
          }
          for (FlatRange const& range : buffer.ranges()) {
            if (expected.count(range.name) == 0) continue;
            at::Tensor const sum = all.narrow(0, range.offset, range.numel).view(range.shape);
            EXPECT_TRUE(at::equal(sum, expected.at(range.name))) << range.name << " " << ranks << " " << sharded;
          }
          EXPECT_EQ(reducer.collectives_started() % 2, 0);
        });
      }
    }
  }
}

TEST(GradientReducerTest, ShardedSumsAreTheFullBatchGradientInSlices) {
  auto const expected = full_batch_gradients(12);
  for (int ranks : {1, 2, 3, 4}) {
    run_ranks(ranks, [&](Communicator const& group) {
      SmallModel const model;
      FlatBuffer buffer(model.parameters, {tiny, tiny, ranks});
      GradientReducer reducer(group, buffer, {true, false, 1});
      auto const share = 12 / ranks;
      reducer.zero();
      reducer.arm(used_by_small_model());
      torch::autograd::backward({model.loss(small_batch(12).narrow(0, group.rank() * share, share))}, {});
      reducer.finish();
      for (OwnedRange const& owned : owned_ranges(buffer, group.rank(), ranks)) {
        for (FlatRange const& range : buffer.ranges()) {
          auto const begin = std::max(owned.flat, range.offset),
                     end = std::min(owned.flat + owned.numel, range.offset + range.numel);
          if (begin >= end || expected.count(range.name) == 0) continue;
          EXPECT_TRUE(at::allclose(reducer.own_gradients().narrow(0, owned.own + begin - owned.flat, end - begin),
                                   expected.at(range.name).flatten().narrow(0, begin - range.offset, end - begin), 1e-5,
                                   1e-5))
              << range.name << " of rank " << group.rank();
        }
      }
    });
  }
}

TEST(GradientReducerTest, InBf16TheSumIsTheFp32SumOfRoundedGradientsRoundedOnceAndTheSameOnEveryRank) {
  for (int ranks : {1, 2, 3, 4}) {
    std::vector<at::Tensor> sums(static_cast<std::size_t>(ranks)), parts(sums);
    run_ranks(ranks, [&](Communicator const& group) {
      SmallModel const model;
      auto const mine = static_cast<std::size_t>(group.rank());
      auto const share = 12 / ranks;
      auto const backward = [&] {
        torch::autograd::backward({model.loss(small_batch(12).narrow(0, group.rank() * share, share))}, {});
      };
      FlatBuffer buffer(model.parameters, {tiny, tiny, ranks});
      backward();
      parts[mine] = buffer.gradients().to(at::kBFloat16).to(at::kFloat);
      for (bool const sharded : {false, true}) {
        GradientReducer reducer(group, buffer, {sharded, false, 1, true});
        reducer.zero();
        reducer.arm(used_by_small_model());
        backward();
        reducer.finish();
        barrier(group);
        at::Tensor sum = parts[0].clone();
        for (std::size_t rank = 1; rank < parts.size(); ++rank) sum += parts[rank];
        if (sharded) {
          for (OwnedRange const& owned : owned_ranges(buffer, group.rank(), ranks)) {
            EXPECT_TRUE(at::allclose(reducer.own_gradients().narrow(0, owned.own, owned.numel),
                                     sum.narrow(0, owned.flat, owned.numel), 1e-6, 1e-6));
          }
        } else {
          sums[mine] = reducer.own_gradients().clone();
          EXPECT_TRUE(at::allclose(sums[mine], sum.to(at::kBFloat16).to(at::kFloat), 1e-6, 1e-6)) << ranks;
        }
      }
    });
    for (at::Tensor const& sum : sums) EXPECT_TRUE(at::equal(sum, sums.front())) << ranks;
  }
  SmallModel const model;
  FlatBuffer buffer(model.parameters);
  EXPECT_THROW(GradientReducer(Communicator(), buffer, {false, true, 1, true}), std::invalid_argument);
}

}  // namespace
}  // namespace duoflow::dist
