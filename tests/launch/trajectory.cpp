#include "tests/launch/trajectory.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow::launch {
namespace {

void expect_gradient(at::Tensor const& found, at::Tensor const& expected) {
  EXPECT_LE((found - expected).abs().max().item<double>(), kGradientTolerance * expected.abs().max().item<double>());
}

void expect_weight(double found, double expected) {
  EXPECT_NEAR(found, expected, kLossWeightTolerance * std::abs(expected));
}

}  // namespace

at::Tensor unpadded(dist::FlatBuffer const& buffer, at::Tensor const& flat) {
  std::vector<at::Tensor> parts;
  for (auto const& range : buffer.ranges()) parts.push_back(flat.narrow(0, range.offset, range.numel));
  return at::cat(parts);
}

void Trajectory::note_update(TinyRun& run) {
  auto whole = run.gradients();
  if (run.optimizer().shared_over().size() > 1) {
    whole = at::empty({run.buffer().size()});
    run.optimizer().gather(run.gradients(), 0, {whole});
  }
  gradients.push_back(unpadded(run.buffer(), whole));
  parameters.push_back(unpadded(run.buffer(), run.buffer().parameters()));
  velocity_weights.push_back(run.weights().velocity.item<double>());
  render_weights.push_back(run.weights().render.item<double>());
}

void expect_close(Trajectory const& found, Trajectory const& expected, std::size_t first) {
  ASSERT_GT(found.size(), 0U);
  for (std::size_t i = 0; i < found.size(); ++i) {
    SCOPED_TRACE("update " + std::to_string(first + i));
    expect_gradient(found.gradients[i], expected.gradients[first + i]);
    EXPECT_LE((found.parameters[i] - expected.parameters[first + i]).abs().max().item<double>(), kParameterTolerance);
    expect_weight(found.velocity_weights[i], expected.velocity_weights[first + i]);
    expect_weight(found.render_weights[i], expected.render_weights[first + i]);
  }
}

void expect_same_bits(Trajectory const& found, Trajectory const& expected, std::size_t first) {
  ASSERT_GT(found.size(), 0U);
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(at::equal(found.gradients[i], expected.gradients[first + i])) << i;
    EXPECT_TRUE(at::equal(found.parameters[i], expected.parameters[first + i])) << i;
    EXPECT_EQ(found.velocity_weights[i], expected.velocity_weights[first + i]) << i;
    EXPECT_EQ(found.render_weights[i], expected.render_weights[first + i]) << i;
  }
}

void expect_objective(Trajectory const& found, at::Tensor const& gradient, double velocity_weight,
                      double render_weight) {
  expect_gradient(found.gradients.back(), gradient);
  expect_weight(found.velocity_weights.back(), velocity_weight);
  expect_weight(found.render_weights.back(), render_weight);
}

}  // namespace duoflow::launch
