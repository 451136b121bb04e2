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
  Pending broadcast(at::Tensor, int) override { throw std::logic_error("not used here"); }
  void barrier() override {}
  std::vector<at::Tensor> reduced;
};

struct Traced {
  std::shared_ptr<TracingTransport> transport = std::make_shared<TracingTransport>();
  SmallModel model;
  FlatBuffer buffer{model.parameters};
  GradientReducer reducer;
  explicit Traced(double mib) : reducer(Communicator(transport), buffer, {mib, mib}) {}
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
        run_ranks(ranks, [&](Communicator const& group) {
          expect_sum_over_ranks_equals_full_batch(group, micro_steps, mib);
        });
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
  EXPECT_EQ(message_of([&] { traced.reducer.finish(); }),
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
    FlatBuffer buffer(model.parameters);
    GradientReducer reducer(group, buffer, {tiny, tiny});
    reducer.arm(used_by_small_model());
    if (group.rank() == 1) {
      throw std::runtime_error("no memory left");
    }
    torch::autograd::backward({model.loss(small_batch(2))}, {});
    EXPECT_NE(message_of([&] { reducer.finish(); }).find("rank 1 failed (no memory left)"), std::string::npos);
  };
  EXPECT_EQ(message_of([&] { run_ranks(3, body); }), "rank 1: no memory left");
}

}  // namespace
}  // namespace duoflow::dist
