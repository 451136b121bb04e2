// The gradient's way on the device: bucketed reduction in every mode, the norm, and the sharded optimizer, each against
// the CPU. One rank goes over NCCL; two ranks are threads that share the device and talk through host memory.

#include <cmath>
#include <optional>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/gradient_norm.h"
#include "dist/gradient_reducer.h"
#include "dist/reproducible_sum.h"
#include "dist/sharded_adamw.h"
#include "dist/thread_backend.h"
#include "tests/dist/small_model.h"
#include "tests/dist/tcp_ranks.h"
#include "tests/gpu/cuda_world.h"

namespace duoflow::dist {
namespace {

constexpr std::int64_t kSamples = 12;
constexpr double kClip = 0.5;

struct Mode {
  std::string name;
  ReductionOptions options;
};

// What a rank has after some updates, in host memory.
struct Result {
  at::Tensor gradients, norm, parameters, exp_avg;  // gradients: what is owned, clipped, of the last update
};

// The trainer's way of an update on a rank's share of the samples: reduce, clip, AdamW, gather.
Result train(Communicator const& group, at::Device device, ReductionOptions options) {
  int const updates = 3;
  SmallModel const model(device);
  // One bucket: two ranks in one process share autograd's thread of the device, which must not wait for the other rank.
  FlatBuffer buffer(model.parameters, {25, 25, 4});
  auto const shared_over = options.sharded ? group : Communicator();
  std::int64_t const micro_steps = options.reproducible ? 4 / group.size() : 1;
  options.shards = micro_steps;
  GradientReducer reducer(group, buffer, options);
  GradientNorm norm(buffer, shared_over);
  ShardedAdamW optimizer(buffer, {0.9, 0.95, 1e-3, {0.1, 0.0}}, shared_over);
  auto const scalar = at::TensorOptions(at::kFloat).device(device);
  auto const rate = at::full({}, 1e-2, scalar), found_inf = at::zeros({}, scalar);
  auto const batch = small_batch(kSamples).to(device);
  std::int64_t const count = kSamples / (group.size() * micro_steps), first = group.rank() * micro_steps;
  Result result;
  for (int update = 0; update < updates; ++update) {
    reducer.zero();
    optimizer.wait_for_parameters();
    for (std::int64_t k = 0; k < micro_steps; ++k) {
      if (k + 1 == micro_steps) reducer.arm(used_by_small_model());
      torch::autograd::backward({model.loss(batch.narrow(0, (first + k) * count, count))}, {});
      if (options.reproducible && k + 1 < micro_steps) reducer.shard_done(k, used_by_small_model());
    }
    reducer.finish();
    result.norm = norm.clip(reducer.own_gradients(), kClip).cpu();
    optimizer.step(reducer.own_gradients(), rate, found_inf);
  }
  optimizer.wait_for_parameters();
  result.gradients = reducer.own_gradients().cpu();
  result.parameters = buffer.parameters().detach().cpu();
  result.exp_avg = optimizer.exp_avg().cpu();
  return result;
}

void expect_close(Result const& cuda, Result const& cpu, double tolerance) {
  EXPECT_GT(cpu.norm.item<float>(), kClip) << "nothing is clipped";
  EXPECT_LT(relative_distance(cuda.norm, cpu.norm), tolerance);
  EXPECT_LT(relative_distance(cuda.gradients, cpu.gradients), tolerance);
  EXPECT_LT(relative_distance(cuda.exp_avg, cpu.exp_avg), tolerance);
  EXPECT_LT(relative_distance(cuda.parameters, cpu.parameters), tolerance);
}

class CudaReduction : public ::testing::TestWithParam<Mode> {
 protected:
  // bf16 rounds to 2^-8, and may round the same number to the other side.
  static double tolerance() { return GetParam().options.bf16 ? 1e-2 : 1e-5; }
};

TEST_P(CudaReduction, OneRankOverNcclFollowsTheCpu) {
  expect_close(train(nccl_of_one(), at::kCUDA, GetParam().options), train({}, at::kCPU, GetParam().options),
               tolerance());
}

TEST_P(CudaReduction, TwoRanksThroughHostMemoryFollowTheCpu) {
  std::vector<Result> cpu(2), cuda(2);
  run_ranks(2, [&](Communicator const& group) {
    cpu[static_cast<std::size_t>(group.rank())] = train(group, at::kCPU, GetParam().options);
  });
  run_tcp_ranks(2, [&](Communicator const& group) {
    cuda[static_cast<std::size_t>(group.rank())] = train(group, at::kCUDA, GetParam().options);
  });
  for (std::size_t rank : {0, 1}) expect_close(cuda[rank], cpu[rank], tolerance());
  EXPECT_TRUE(at::equal(cuda[0].parameters, cuda[1].parameters)) << "replicas differ";
}

INSTANTIATE_TEST_SUITE_P(Modes, CudaReduction,
                         ::testing::Values(Mode{"plain", {}}, Mode{"sharded", {true}},
                                           Mode{"reproducible", {false, true}},
                                           Mode{"reproducible_sharded", {true, true}},
                                           Mode{"bf16", {false, false, 1, true}},
                                           Mode{"bf16_sharded", {true, false, 1, true}}),
                         [](auto const& mode) { return mode.param.name; });

TEST(CudaReproducibleSums, HaveTheSameBitsOnOneAndTwoRanks) {
  ReductionOptions const reproducible{false, true};
  auto const one = train(nccl_of_one(), at::kCUDA, reproducible);
  std::vector<Result> two(2);
  run_tcp_ranks(2, [&](Communicator const& group) {
    two[static_cast<std::size_t>(group.rank())] = train(group, at::kCUDA, reproducible);
  });
  for (auto const& rank : two) {
    EXPECT_TRUE(at::equal(rank.gradients, one.gradients));
    EXPECT_TRUE(at::equal(rank.norm, one.norm));
    EXPECT_TRUE(at::equal(rank.parameters, one.parameters));
  }
}

TEST(CudaReproducibleSums, AddAlongTheTreeOfTheCpuBitForBit) {
  auto const pieces = (at::arange(8 * 1000, at::kFloat) * 0.7).sin().view({8, 1000}) * 1e3;
  auto const cuda = pieces.to(at::kCUDA);
  add_along_tree(pieces);
  add_along_tree(cuda);
  EXPECT_TRUE(at::equal(cuda.select(0, 0).cpu(), pieces.select(0, 0)));
}

TEST(CudaGradientNorm, FollowsTheCpuAndClipsWithoutTheHost) {
  auto const norm_of = [](at::Device device, double max_norm) {
    SmallModel const model(device);
    FlatBuffer buffer(model.parameters);
    GradientNorm norm(buffer);
    buffer.gradients().copy_(((at::arange(buffer.size(), at::kFloat) * 0.11).cos() * 100).to(device));
    std::optional<NoHostSynchronisation> guard;
    if (device.is_cuda()) guard.emplace();
    auto const before = norm.clip(buffer.gradients(), max_norm);
    return std::pair(before, buffer.gradients());
  };
  for (double const max_norm : {0.0, 1.0, 1e9}) {
    auto const cuda = norm_of(at::kCUDA, max_norm), cpu = norm_of(at::kCPU, max_norm);
    EXPECT_LT(relative_distance(cuda.first, cpu.first), 1e-6);
    EXPECT_LT(relative_distance(cuda.second, cpu.second), 1e-6);
  }
}

TEST(CudaGradientNorm, IsNotFiniteWhereAGradientIsNot) {
  SmallModel const model(at::kCUDA);
  FlatBuffer buffer(model.parameters);
  GradientNorm norm(buffer);
  for (double const bad : {std::nan(""), HUGE_VAL}) {
    buffer.gradients().fill_(1);
    buffer.gradients()[5].fill_(bad);
    EXPECT_FALSE(std::isfinite(norm.clip(buffer.gradients(), 1).item<float>()));
  }
}

}  // namespace
}  // namespace duoflow::dist
