// The AdamW kernel, its source compiled for the CPU by an emulator, against at::_fused_adamw_ and the average in ATen.

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/cuda_emulator.h"

#include "dist/cuda/adamw.cu"
#include "tests/support/guarded.h"

namespace duoflow::dist::kernels {
namespace {

float* floats(at::Tensor const& t) { return t.defined() ? static_cast<float*>(t.data_ptr()) : nullptr; }

struct State {
  at::Tensor parameters, gradients, exp_avg, exp_avg_sq, average, bf16;
  AdamWRun run(bool with_average = true) const {
    return {floats(parameters),
            floats(gradients),
            floats(exp_avg),
            floats(exp_avg_sq),
            with_average ? floats(average) : nullptr,
            bf16.defined() ? bf16.data_ptr() : nullptr,
            parameters.numel()};
  }
  std::vector<at::Tensor> all() const { return {parameters, gradients, exp_avg, exp_avg_sq, average}; }
};

State copy_of(State const& state, GuardedTensors& memory) {
  return {memory.copy_of(state.parameters), memory.copy_of(state.gradients), memory.copy_of(state.exp_avg),
          memory.copy_of(state.exp_avg_sq), memory.copy_of(state.average),   memory.empty({state.parameters.numel()}, at::kBFloat16)};
}

State random_state(std::int64_t count) {
  at::manual_seed(static_cast<std::uint64_t>(count));
  at::Tensor const parameters = at::randn({count});
  return {parameters, at::randn({count}), at::randn({count}) * 0.1, at::rand({count}), parameters + at::randn({count}) * 0.1, {}};
}

struct Scalars {
  at::Tensor rate = at::full({}, 0.01), found_inf = at::zeros({}), count = at::full({}, 3.0), weight = at::full({}, 0.125),
             factor = at::full({}, 0.25);
  AdamWScalars pointers(bool clips = true) const {
    return {floats(rate), floats(found_inf), floats(count), floats(weight), clips ? floats(factor) : nullptr};
  }
};

AdamWRule const kRule{0.9, 0.95, 0.1, 1e-8};

// A few roundings of the largest element, which may be what is left of a difference.
void expect_near(at::Tensor const& ours, at::Tensor const& theirs, char const* what) { EXPECT_LT(distance(ours, theirs), 2e-6) << what; }

class AdamWCudaTest : public testing::TestWithParam<std::int64_t> {};  // elements off a boundary
INSTANTIATE_TEST_SUITE_P(OffBoundary, AdamWCudaTest, testing::Values(0, 1), [](auto const& test) { return std::to_string(test.param); });

TEST_P(AdamWCudaTest, IsAtensUpdateWithAverageAndCopy) {
  GuardedTensors memory(GetParam());
  for (std::int64_t const count : {1, 3, 64, 1030, 5000})
    for (bool const averages : {true, false}) {
      State const before = random_state(count), ours = copy_of(before, memory), theirs = copy_of(before, memory);
      Scalars const scalars;
      adamw_run(ours.run(averages), scalars.pointers(averages), kRule, nullptr);
      at::Tensor parameters[] = {theirs.parameters}, gradients[] = {averages ? theirs.gradients * 0.25 : theirs.gradients},
                 exp_avg[] = {theirs.exp_avg}, exp_avg_sq[] = {theirs.exp_avg_sq}, counts[] = {scalars.count};
      at::_fused_adamw_(parameters, gradients, exp_avg, exp_avg_sq, {}, counts, scalars.rate, kRule.beta1, kRule.beta2, kRule.weight_decay,
                        kRule.eps, false, false, {}, scalars.found_inf);
      if (averages) theirs.average.add_((theirs.parameters - theirs.average) * 0.125);
      expect_near(ours.parameters, theirs.parameters, "parameters");
      expect_near(ours.exp_avg, theirs.exp_avg, "exp_avg");
      expect_near(ours.exp_avg_sq, theirs.exp_avg_sq, "exp_avg_sq");
      expect_near(ours.average, theirs.average, "average");
      EXPECT_TRUE(at::equal(ours.bf16, ours.parameters.to(at::kBFloat16)));
      EXPECT_TRUE(at::equal(ours.gradients, before.gradients));
    }
  memory.expect_untouched_guards("adamw");
}

TEST(AdamWCudaSkipTest, NothingChangesWhereANumberWasNotFinite) {
  GuardedTensors memory;
  State const before = random_state(1000), after = copy_of(before, memory);
  Scalars scalars;
  scalars.found_inf.fill_(1);
  scalars.factor.fill_(NAN);
  adamw_run(after.run(), scalars.pointers(), kRule, nullptr);
  for (std::size_t i = 0; i < before.all().size(); ++i) EXPECT_TRUE(at::equal(after.all()[i], before.all()[i])) << i;
  EXPECT_TRUE(after.bf16.isnan().all().item<bool>());
}

TEST(AdamWCudaSkipTest, AnIdleSectionKeepsItsParametersWhichTheAverageFollows) {
  GuardedTensors memory;
  State const before = random_state(1000), after = copy_of(before, memory);
  Scalars const scalars;
  AdamWRule rule = kRule;
  rule.idle = true;
  adamw_run(after.run(), scalars.pointers(), rule, nullptr);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(at::equal(after.all()[i], before.all()[i])) << i;
  expect_near(after.average, before.average + (before.parameters - before.average) * 0.125, "average");
}

// Ranks cut the flat buffer at 64 bytes.
TEST(AdamWCudaSliceTest, SlicesHaveTheBitsOfTheWhole) {
  GuardedTensors memory;
  std::int64_t const count = 4096, cut = 1040;
  State const before = random_state(count), whole = copy_of(before, memory), halves = copy_of(before, memory);
  Scalars const scalars;
  adamw_run(whole.run(), scalars.pointers(), kRule, nullptr);
  for (auto const& [first, end] : {std::pair(std::int64_t{0}, cut), std::pair(cut, count)}) {
    AdamWRun run = halves.run();
    run.parameters += first, run.gradients += first, run.exp_avg += first, run.exp_avg_sq += first, run.average += first;
    run.bf16 = static_cast<std::uint16_t*>(run.bf16) + first;
    run.count = end - first;
    adamw_run(run, scalars.pointers(), kRule, nullptr);
  }
  for (std::size_t i = 0; i < whole.all().size(); ++i) EXPECT_TRUE(at::equal(halves.all()[i], whole.all()[i])) << i;
  EXPECT_TRUE(at::equal(halves.bf16, whole.bf16));
}

}  // namespace
}  // namespace duoflow::dist::kernels
