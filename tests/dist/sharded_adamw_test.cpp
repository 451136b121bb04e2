#include "dist/sharded_adamw.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <stdexcept>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "dist/gradient_norm.h"
#include "dist/thread_backend.h"

namespace duoflow::dist {
namespace {

constexpr std::int64_t decayed = 24, plain = 16;

// The inputs of tests/golden/make_adamw.py.
FlatBuffer golden_buffer() {
  at::Tensor const all = ((at::arange(decayed + plain, at::kDouble).remainder(9) - 4) / 4).to(at::kFloat);
  return FlatBuffer({{"decayed", all.narrow(0, 0, decayed).clone().requires_grad_(), 0},
                     {"plain", all.narrow(0, decayed, plain).clone().requires_grad_(), 1}});
}

at::Tensor golden_gradient(std::int64_t step, std::int64_t first, std::int64_t count) {
  at::Tensor const index = at::arange(first, first + count, at::kDouble);
  return (((index * 7 + step * 5).remainder(11) - 5) / 8 * step).to(at::kFloat);
}

void set_golden_gradients(FlatBuffer& buffer, std::int64_t step) {
  buffer.gradients().zero_();  // the padding too
  for (std::size_t i = 0; i < buffer.tensors().size(); ++i) {
    bool const is_decayed = buffer.ranges()[i].name == "decayed";
    buffer.tensors()[i].grad().copy_(golden_gradient(step, is_decayed ? 0 : decayed, is_decayed ? decayed : plain));
  }
}

at::Tensor in_golden_order(FlatBuffer const& buffer) {
  bool const decayed_first = buffer.ranges()[0].name == "decayed";
  return at::cat({buffer.tensors()[decayed_first ? 0 : 1], buffer.tensors()[decayed_first ? 1 : 0]});
}

at::Tensor tensor_of(std::vector<double> const& values) { return at::tensor(values, at::kDouble).to(at::kFloat); }

AdamWOptions const options{0.9, 0.95, 1e-8, {0.1, 0.0}};

TEST(ShardedAdamWTest, FollowsTorchWithClipping) {
  auto const golden = nlohmann::json::parse(std::ifstream(DUOFLOW_SOURCE_DIR "/tests/golden/adamw.json"));
  ASSERT_EQ(golden.at("magic"), "duoflow-adamw");
  FlatBuffer buffer = golden_buffer();
  ShardedAdamW optimizer(buffer, options);
  for (std::size_t step = 1; step <= 5; ++step) {
    set_golden_gradients(buffer, static_cast<std::int64_t>(step));
    float const norm = GradientNorm(buffer).clip(buffer.gradients(), golden.at("max_norm")).item<float>();
    EXPECT_FLOAT_EQ(norm, golden.at("norm_before_clip").at(step - 1).get<float>());
    optimizer.step(buffer.gradients(), at::full({}, 0.01 / static_cast<double>(step)), at::zeros({}));
    at::Tensor const expected = tensor_of(golden.at("parameters_after_step").at(step - 1).get<std::vector<double>>());
    // The fused kernel orders its operations differently: a few units in the last place of values up to 1.
    EXPECT_TRUE(at::allclose(in_golden_order(buffer), expected, 1e-6, 5e-7)) << "step " << step;
  }
  EXPECT_EQ(optimizer.update_count().item<float>(), 5);
}

TEST(ShardedAdamWTest, ASkippedStepKeepsEveryBitEvenWithNonFiniteGradients) {
  for (std::int64_t updates_before : {0, 2}) {
    FlatBuffer buffer = golden_buffer();
    ShardedAdamW optimizer(buffer, options);
    for (std::int64_t step = 1; step <= updates_before; ++step) {
      set_golden_gradients(buffer, step);
      optimizer.step(buffer.gradients(), at::full({}, 0.01), at::zeros({}));
    }
    at::Tensor const parameters = buffer.parameters().clone(), average = optimizer.exp_avg().clone(),
                     square = optimizer.exp_avg_sq().clone();
    buffer.gradients().fill_(std::numeric_limits<float>::quiet_NaN());
    at::Tensor const norm = GradientNorm(buffer).clip(buffer.gradients(), 1.0);
    EXPECT_TRUE(norm.isnan().item<bool>());
    optimizer.step(buffer.gradients(), at::full({}, 0.01), at::ones({}));
    EXPECT_TRUE(at::equal(buffer.parameters(), parameters));
    EXPECT_TRUE(at::equal(optimizer.exp_avg(), average));
    EXPECT_TRUE(at::equal(optimizer.exp_avg_sq(), square));
    EXPECT_EQ(optimizer.update_count().item<float>(), static_cast<float>(updates_before));
  }
}

TEST(ShardedAdamWTest, AStepAfterASkipIsTheStepWithoutIt) {
  FlatBuffer straight = golden_buffer(), skipping = golden_buffer();
  ShardedAdamW a(straight, options), b(skipping, options);
  for (std::int64_t step = 1; step <= 3; ++step) {
    skipping.gradients().fill_(std::numeric_limits<float>::infinity());
    b.step(skipping.gradients(), at::full({}, 0.01), at::ones({}));
    set_golden_gradients(straight, step);
    set_golden_gradients(skipping, step);
    a.step(straight.gradients(), at::full({}, 0.01), at::zeros({}));
    b.step(skipping.gradients(), at::full({}, 0.01), at::zeros({}));
    EXPECT_TRUE(at::equal(straight.parameters(), skipping.parameters()));
  }
}

TEST(ShardedAdamWTest, AFactorOnTheGradientsIsThatOfClipping) {
  FlatBuffer clipped = golden_buffer(), measured = golden_buffer();
  ShardedAdamW first(clipped, options), second(measured, options);
  GradientNorm norm(clipped);
  for (std::int64_t step = 1; step <= 3; ++step) {
    set_golden_gradients(clipped, step);
    set_golden_gradients(measured, step);
    auto const found = norm.measure(measured.gradients(), 1.0);
    EXPECT_TRUE(at::equal(norm.clip(clipped.gradients(), 1.0), found.norm));
    EXPECT_LT(found.factor.item<float>(), 1);
    first.step(clipped.gradients(), at::full({}, 0.01), at::zeros({}));
    second.step(measured.gradients(), at::full({}, 0.01), at::zeros({}), 0, found.factor);
  }
  EXPECT_TRUE(at::equal(clipped.parameters(), measured.parameters()));
}

TEST(ShardedAdamWTest, PaddingStaysZero) {
  FlatBuffer buffer = golden_buffer();
  ShardedAdamW optimizer(buffer, options);
  set_golden_gradients(buffer, 1);
  optimizer.step(buffer.gradients(), at::full({}, 0.01), at::zeros({}));
  auto const& ranges = buffer.ranges();
  std::int64_t padding = 0;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    std::int64_t const begin = ranges[i].offset + ranges[i].numel,
                       end = i + 1 < ranges.size() ? ranges[i + 1].offset : buffer.size();
    padding += end - begin;
    EXPECT_TRUE(at::equal(buffer.parameters().narrow(0, begin, end - begin), at::zeros({end - begin}))) << i;
  }
  EXPECT_EQ(padding, 8);
}

// Without gradients AdamW shrinks a decayed parameter by q = 1 - rate * decay a step, so its average after n steps is
// p0 (d^n + (1-d) q (q^n - d^n) / (q-d)).
TEST(ShardedAdamWTest, TheAverageOfAShrinkingParameterIsTheGeometricSum) {
  FlatBuffer buffer = golden_buffer();
  at::Tensor const start = buffer.parameters().clone();
  AdamWOptions averaged = options;
  averaged.average = {0.8, false};
  ShardedAdamW optimizer(buffer, averaged);
  EXPECT_TRUE(at::equal(optimizer.average(), start));
  for (int n = 1; n <= 5; ++n) {
    buffer.gradients().zero_();
    optimizer.step(buffer.gradients(), at::full({}, 1.0), at::zeros({}));
    double const q = 0.9, d = 0.8;
    double const factor = std::pow(d, n) + (1 - d) * q * (std::pow(q, n) - std::pow(d, n)) / (q - d);
    for (FlatRange const& range : buffer.ranges()) {
      auto const of = [&](at::Tensor const& flat) { return flat.narrow(0, range.offset, range.numel); };
      at::Tensor const expected = of(start) * (range.name == "decayed" ? factor : 1.0);
      EXPECT_TRUE(at::allclose(of(optimizer.average()), expected, 1e-6, 0)) << range.name << " after " << n;
    }
  }
}

TEST(ShardedAdamWTest, TheAverageWarmsUpWithTheUpdatesThatAreMade) {
  FlatBuffer buffer = golden_buffer();
  AdamWOptions averaged = options;
  averaged.average = {0.75, true};
  ShardedAdamW optimizer(buffer, averaged);
  at::Tensor expected = buffer.parameters().to(at::kDouble);
  for (std::int64_t step = 1, updates = 0; step <= 40; ++step) {
    bool const skipped = step % 4 == 0;
    set_golden_gradients(buffer, step);
    optimizer.step(buffer.gradients(), at::full({}, 0.01), at::full({}, skipped ? 1.0 : 0.0));
    if (skipped) continue;
    ++updates;
    double const weight = std::max(0.25, 9.0 / (9.0 + static_cast<double>(updates)));  // 0.25 from the 27th on
    expected = expected + weight * (buffer.parameters().to(at::kDouble) - expected);
    EXPECT_TRUE(at::allclose(optimizer.average().to(at::kDouble), expected, 1e-5, 1e-6)) << "step " << step;
  }
}

TEST(ShardedAdamWTest, ASkippedStepLeavesTheAverageEvenWithGradientsThatAreNotFinite) {
  FlatBuffer buffer = golden_buffer();
  AdamWOptions averaged = options;
  averaged.average.decay = 0.9;
  ShardedAdamW optimizer(buffer, averaged);
  set_golden_gradients(buffer, 1);
  optimizer.step(buffer.gradients(), at::full({}, 0.01), at::zeros({}));
  at::Tensor const before = optimizer.average().clone();
  EXPECT_FALSE(at::equal(before, buffer.parameters()));
  buffer.gradients().fill_(std::numeric_limits<float>::quiet_NaN());
  optimizer.step(buffer.gradients(), at::full({}, 0.01), at::ones({}));
  EXPECT_TRUE(at::equal(optimizer.average(), before));
}

TEST(ShardedAdamWTest, AFactorOnTheRateOfAGroupIsTheUpdateAtThatRate) {
  FlatBuffer scaled = golden_buffer(), slow = golden_buffer(), fast = golden_buffer();
  AdamWOptions factors = options;
  factors.rate_factor = {0.25, 1};
  ShardedAdamW a(scaled, factors), b(slow, options), c(fast, options);
  for (std::int64_t step = 1; step <= 3; ++step) {
    for (auto* buffer : {&scaled, &slow, &fast}) set_golden_gradients(*buffer, step);
    a.step(scaled.gradients(), at::full({}, 0.5), at::zeros({}));
    b.step(slow.gradients(), at::full({}, 0.125), at::zeros({}));
    c.step(fast.gradients(), at::full({}, 0.5), at::zeros({}));
    for (std::size_t i = 0; i < 2; ++i)
      EXPECT_TRUE(at::equal(scaled.tensors()[i], (scaled.ranges()[i].group == 0 ? slow : fast).tensors()[i])) << i;
  }
}

TEST(ShardedAdamWTest, AGroupWithoutWeightDecayAndWrongScalarsAreRefused) {
  FlatBuffer buffer = golden_buffer();
  EXPECT_THROW(ShardedAdamW(buffer, AdamWOptions{0.9, 0.95, 1e-8, {0.1}}), std::invalid_argument);
  EXPECT_THROW(ShardedAdamW(buffer, AdamWOptions{0.9, 0.95, 1e-8, {0.1, 0}, {1}}), std::invalid_argument);
  EXPECT_THROW(ShardedAdamW(buffer, AdamWOptions{0.9, 0.95, 1e-8, {0.1, 0}, {}, {1.0}}), std::invalid_argument);
  ShardedAdamW optimizer(buffer, options);
  EXPECT_THROW(optimizer.step(buffer.gradients(), at::zeros({}, at::kDouble), at::zeros({})), std::invalid_argument);
  EXPECT_THROW(optimizer.step(buffer.gradients(), at::zeros({}), at::zeros({2})), std::invalid_argument);
}

TEST(ClipGradientNormTest, MeasuresWithoutClippingAndClipsOnlyAboveTheLimit) {
  FlatBuffer buffer = golden_buffer();
  buffer.gradients().fill_(0).narrow(0, 0, 2).copy_(at::tensor(std::vector<float>{3, 4}));
  EXPECT_EQ(GradientNorm(buffer).clip(buffer.gradients(), 0).item<float>(), 5);
  EXPECT_EQ(GradientNorm(buffer).clip(buffer.gradients(), 5.1).item<float>(), 5);
  EXPECT_EQ(buffer.gradients()[1].item<float>(), 4);
  EXPECT_EQ(GradientNorm(buffer).clip(buffer.gradients(), 1).item<float>(), 5);
  EXPECT_FLOAT_EQ(buffer.gradients()[1].item<float>(), 0.8F);
}

TEST(ClipGradientNormTest, IsExactOverChunksAndBeyondTheRangeOfFp32Squares) {
  std::int64_t const numel = (std::int64_t{1} << 22) + 33;  // more than one chunk
  FlatBuffer buffer({{"large", at::zeros({numel}).requires_grad_(), 0}});
  buffer.gradients().narrow(0, 0, numel).fill_(1e25F);
  double const expected = 1e25 * std::sqrt(static_cast<double>(numel));
  EXPECT_FLOAT_EQ(GradientNorm(buffer).clip(buffer.gradients(), 0).item<float>(), static_cast<float>(expected));
}

// Three parameters that straddle slices, two groups, several buckets.
FlatBuffer sliced_buffer(std::int64_t slices) {
  auto const parameter = [](std::int64_t numel, double phase) {
    return ((at::arange(numel, at::kDouble) * 0.37 + phase).sin()).to(at::kFloat).requires_grad_();
  };
  return FlatBuffer({{"first", parameter(700, 0), 0}, {"norm", parameter(33, 1), 1}, {"last", parameter(257, 2), 0}},
                    {0.001, 0.001, slices});
}

at::Tensor wavy_gradients(FlatBuffer const& buffer, std::int64_t step) {
  at::Tensor gradients = at::zeros({buffer.size()});
  for (FlatRange const& range : buffer.ranges()) {
    gradients.narrow(0, range.offset, range.numel)
        .copy_((at::arange(range.numel, at::kDouble) * 0.11 + static_cast<double>(step)).cos());
  }
  return gradients;
}

at::Tensor owned_part(FlatBuffer const& buffer, at::Tensor const& flat, int rank, int size) {
  at::Tensor own = at::zeros({buffer.size() / size});
  for (OwnedRange const& range : owned_ranges(buffer, rank, size)) {
    own.narrow(0, range.own, range.numel).copy_(flat.narrow(0, range.flat, range.numel));
  }
  return own;
}

TEST(ShardedAdamWTest, SharedOverRanksItHasTheBitsOfOne) {
  AdamWOptions all = options;
  all.rate_factor = {0.5, 2};
  all.average = {0.9, true};
  all.rounds = true;
  for (int ranks : {1, 2, 3, 4, 8}) {
    std::int64_t const slices = ranks == 3 ? 3 : 8;
    FlatBuffer alone = sliced_buffer(slices);
    ShardedAdamW expected(alone, all);
    GradientNorm norm_alone(alone);
    std::vector<at::Tensor> norms;
    for (std::int64_t step = 1; step <= 3; ++step) {
      alone.gradients().copy_(wavy_gradients(alone, step));
      norms.push_back(norm_alone.clip(alone.gradients(), 1));
      expected.step(alone.gradients(), at::full({}, 0.01), at::full({}, step == 2 ? 1.0 : 0.0));
    }
    run_ranks(ranks, [&](Communicator const& group) {
      FlatBuffer buffer = sliced_buffer(slices);
      ShardedAdamW optimizer(buffer, all, group);
      GradientNorm norm(buffer, group);
      for (std::int64_t step = 1; step <= 3; ++step) {
        at::Tensor const own = owned_part(buffer, wavy_gradients(buffer, step), group.rank(), group.size());
        EXPECT_TRUE(at::equal(norm.clip(own, 1), norms[static_cast<std::size_t>(step - 1)])) << ranks;
        optimizer.step(own, at::full({}, 0.01), at::full({}, step == 2 ? 1.0 : 0.0));
        optimizer.wait_for_parameters();
        EXPECT_TRUE(at::equal(optimizer.rounded(), buffer.parameters().to(at::kBFloat16))) << ranks << " " << step;
      }
      EXPECT_TRUE(at::equal(buffer.parameters(), alone.parameters())) << ranks;
      EXPECT_EQ(optimizer.exp_avg().numel(), buffer.size() / ranks);
      auto const gathered = [&](at::Tensor const& own, std::int64_t begin, std::int64_t end) {
        at::Tensor const values = at::empty({end - begin});
        optimizer.gather(own, begin, {values.narrow(0, 0, (end - begin) / 3), values.narrow(0, (end - begin) / 3, end - begin - (end - begin) / 3)});
        return values;
      };
      at::Tensor const average = gathered(optimizer.exp_avg(), 0, buffer.size());
      EXPECT_TRUE(at::equal(gathered(optimizer.average(), 0, buffer.size()), expected.average())) << ranks;
      EXPECT_TRUE(at::equal(average, expected.exp_avg())) << ranks;
      std::int64_t const begin = 5 + group.rank(), end = buffer.size() - 7 * group.rank();  // each its own range
      EXPECT_TRUE(
          at::equal(gathered(optimizer.exp_avg_sq(), begin, end), expected.exp_avg_sq().narrow(0, begin, end - begin)));
      EXPECT_EQ(gathered(optimizer.exp_avg(), 3, 3).numel(), 0);
      ShardedAdamW restored(buffer, all, group);
      for (std::int64_t first = 0; first < buffer.size(); first += 100) {  // pieces that begin and end anywhere
        auto const count = std::min<std::int64_t>(100, buffer.size() - first);
        restored.restore(restored.exp_avg(), first, average.narrow(0, first, count));
        restored.restore(restored.exp_avg_sq(), first, expected.exp_avg_sq().narrow(0, first, count));
      }
      EXPECT_TRUE(at::equal(restored.exp_avg(), optimizer.exp_avg()));
      EXPECT_TRUE(at::equal(restored.exp_avg_sq(), optimizer.exp_avg_sq()));
    });
  }
}

TEST(ShardedAdamWTest, RoundsAnewWhatOthersHaveReplaced) {
  AdamWOptions rounding = options;
  rounding.rounds = true;
  FlatBuffer buffer = golden_buffer();
  ShardedAdamW optimizer(buffer, rounding);
  optimizer.wait_for_parameters();
  EXPECT_TRUE(at::equal(optimizer.rounded(), buffer.parameters().to(at::kBFloat16)));
  buffer.parameters().fill_(1.001);
  optimizer.parameters_replaced();
  optimizer.wait_for_parameters();
  EXPECT_TRUE(at::equal(optimizer.rounded(), at::full({buffer.size()}, 1.001, at::kBFloat16)));
}

TEST(ShardedAdamWTest, AnIdleSectionKeepsEveryBitWhateverIsShared) {
  for (int ranks : {1, 2}) {
    run_ranks(ranks, [](Communicator const& group) {
      auto const parameter = [](std::int64_t numel) { return at::ones({numel}).requires_grad_(); };
      FlatBuffer buffer({{"used", parameter(300), 0, 0}, {"idle", parameter(90), 0, 3}, {"norm", parameter(40), 1, 3}},
                        {0.001, 0.001, 2});
      ShardedAdamW optimizer(buffer, options, group);
      at::Tensor const own = at::ones({buffer.size() / group.size()});
      optimizer.step(own, at::full({}, 0.1), at::zeros({}), std::uint32_t{1} << 3);
      optimizer.wait_for_parameters();
      for (std::size_t i = 0; i < buffer.ranges().size(); ++i) {
        bool const moved = !at::equal(buffer.tensors()[i], at::ones_like(buffer.tensors()[i]));
        EXPECT_EQ(moved, buffer.ranges()[i].name == "used") << buffer.ranges()[i].name;
      }
    });
  }
  EXPECT_THROW(FlatBuffer({{"far", at::ones({2}).requires_grad_(), 0, 32}}), std::invalid_argument);
}

TEST(ShardedAdamWTest, SlicesThatRanksCannotShareAreRefused) {
  run_ranks(3, [](Communicator const& group) {
    FlatBuffer buffer = sliced_buffer(4);
    EXPECT_THROW(ShardedAdamW(buffer, options, group), std::invalid_argument);
  });
}

}  // namespace
}  // namespace duoflow::dist
