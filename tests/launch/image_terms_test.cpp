// Every term of the render loss over micro-steps and ranks: the gate in t and the crops included, any split of the
// batch is the same step. Tolerances: those of joint_order_test.cpp.

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "dist/thread_backend.h"
#include "launch/run_setup.h"
#include "tests/launch/tiny_run.h"
#include "tests/model/loss_networks.h"

namespace duoflow::launch {
namespace {

constexpr double kGradientTolerance = 2e-5;  // of the largest element
constexpr double kRelative = 1e-5;           // of statistics and of the loss weight

TinyShape shape_of(std::int64_t global_batch, std::int64_t micro_steps) {
  TinyShape shape{global_batch, micro_steps, true};
  shape.image_terms = true;
  return shape;
}

struct RankResult {
  at::Tensor gradients, parameters, statistics;
  double velocity_weight = 0;
};

std::vector<RankResult> run(int size, TinyShape const& shape, int updates) {
  std::vector<RankResult> results(static_cast<std::size_t>(size));
  dist::run_ranks(size, [&](dist::Communicator const& communicator) {
    TinyRun tiny(communicator, shape);
    for (int i = 0; i < updates; ++i) EXPECT_FALSE(tiny.update(tiny_batch(shape.global_batch, i)));
    results[static_cast<std::size_t>(communicator.rank())] = {
        tiny.gradients().defined() ? tiny.gradients() : at::Tensor(), tiny.buffer().parameters().clone(),
        tiny.statistics(), tiny.weights().velocity.item<double>()};
  });
  return results;
}

// The objective written down directly: one graph, one backward of the weighted sum over the whole batch.
struct Objective {
  at::Tensor gradients;
  double velocity_weight = 0, lpips = 0, perceptual = 0, render = 0;
};

Objective direct_objective(TinyShape const& shape) {
  TinyRun tiny({}, shape);
  auto const& scene = tiny.model();
  auto const batch = tiny_batch(shape.global_batch);
  auto const x0 = scene.to_flow_space(batch.x0), x1 = scene.to_flow_space(batch.x1);
  auto const t = batch.t.view({-1, 1, 1});
  auto const x_t = (1 - t) * x0 + t * x1;
  auto const v = scene.velocity(x_t, batch.t, scene.light_tokens(batch.env));
  auto const image = scene.render(scene.from_flow_space(x_t + (1 - t) * v), batch.target_rays);
  auto const options = loss_options(tiny_config(shape, 1), model::test::tiny_networks());
  auto const result = model::RenderLoss(options.render)(image, batch.target_image, {batch.t});
  auto const velocity_loss = (v - (x1 - x0)).square().mean(), render_loss = result.loss.mean();
  auto const weight = render_loss.detach() / (velocity_loss.detach() + 1e-8);
  torch::autograd::backward({options.lambda_v * weight * velocity_loss + options.lambda_r * render_loss});
  return {tiny.buffer().gradients().clone(), weight.item<double>(), result.term("lpips").mean().item<double>(),
          result.term("perceptual").mean().item<double>(), render_loss.item<double>()};
}

TEST(ImageTermsTest, AnySplitHasTheGradientAndTheStatisticsOfTheWholeBatch) {
  for (std::int64_t const global_batch : {12, 5}) {
    auto const objective = direct_objective(shape_of(global_batch, 1));
    EXPECT_GT(objective.lpips, 0);
    EXPECT_GT(objective.perceptual, 0);
    auto const scale = objective.gradients.abs().max().item<double>();
    for (int size = 1; size <= 4; ++size) {
      for (std::int64_t const micro_steps : {1, 3}) {
        SCOPED_TRACE(std::to_string(size) + " ranks, G = " + std::to_string(global_batch) +
                     ", K = " + std::to_string(micro_steps));
        for (auto const& rank : run(size, shape_of(global_batch, micro_steps), 1)) {
          EXPECT_NEAR(rank.velocity_weight, objective.velocity_weight, kRelative * objective.velocity_weight);
          EXPECT_LE((rank.gradients - objective.gradients).abs().max().item<double>(), kGradientTolerance * scale);
          auto const mean = [&](int slot) {
            return (rank.statistics[slot] / rank.statistics[model::kSamples]).item<double>();
          };
          EXPECT_NEAR(mean(model::kLpips), objective.lpips, kRelative * objective.lpips);
          EXPECT_NEAR(mean(model::kPerceptual), objective.perceptual, kRelative * objective.perceptual);
          EXPECT_NEAR(mean(model::kRenderLoss), objective.render, kRelative * objective.render);
        }
      }
    }
  }
}

TEST(ImageTermsTest, ReproducibleModeHasTheSameBitsAtAnyRankCount) {
  at::Tensor parameters, statistics;
  for (int const size : {1, 2, 4}) {
    auto shape = shape_of(8, 4 / size);
    shape.reproducible = true;
    for (auto const& rank : run(size, shape, 3)) {
      auto const sums = rank.statistics.narrow(0, 0, model::kStatisticCount);
      if (!parameters.defined()) parameters = rank.parameters, statistics = sums;
      EXPECT_TRUE(at::equal(rank.parameters, parameters)) << size << " ranks";
      EXPECT_TRUE(at::equal(sums, statistics)) << size << " ranks";
    }
  }
}

}  // namespace
}  // namespace duoflow::launch
