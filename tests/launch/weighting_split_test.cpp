// Every weighting at every split: weights, gradients and the trajectory are those of one process that holds the whole
// batch, and that one's are the objective written down with plain backwards. Bit for bit in reproducible mode.

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "dist/thread_backend.h"
#include "launch/run_setup.h"
#include "launch/run_state.h"
#include "tests/launch/trajectory.h"

namespace duoflow::launch {
namespace {

constexpr int kUpdates = 4, kResumedAfter = 2;  // with gradient_interval 2, a measurement on either side
constexpr std::int64_t kBatch = 9;              // K = 3 on 1 to 4 ranks, on some with ranks that have fewer

struct Variant {
  std::string weighting, statistics = "current", gradient_space = "v_pred";
};

TinyShape shape_of(Variant const& variant, std::int64_t global_batch, std::int64_t micro_steps) {
  TinyShape shape{global_batch, micro_steps};
  shape.weighting = variant.weighting, shape.statistics = variant.statistics;
  shape.gradient_space = variant.gradient_space;
  return shape;
}

// ---- the objective written down

std::vector<at::Tensor> parameters_of(model::SceneModel const& model, model::Part part) {
  std::vector<at::Tensor> found;
  for (auto const& parameter : model.parameters())
    if (parameter.part == part && parameter.tensor.requires_grad()) found.push_back(parameter.tensor);
  return found;
}

std::vector<at::Tensor> gradients(at::Tensor const& loss, std::vector<at::Tensor> const& of) {
  return torch::autograd::grad({loss}, of, {}, /*retain_graph=*/true);
}

double norm(std::vector<at::Tensor> const& tensors) {
  double sum = 0;
  for (auto const& tensor : tensors) sum += tensor.square().sum(at::kDouble).item<double>();
  return std::sqrt(sum);
}

// Gradient surgery of two gradients [B,n,d], sample by sample.
at::Tensor without_conflict(at::Tensor const& a, at::Tensor const& b) {
  std::vector<at::Tensor> samples;
  for (std::int64_t i = 0; i < a.size(0); ++i) {
    double const dot = (a[i] * b[i]).sum(at::kDouble).item<double>();
    double const a_sq = std::pow(norm({a[i]}), 2), b_sq = std::pow(norm({b[i]}), 2);
    samples.push_back(dot < 0 ? a[i] - dot / b_sq * b[i] + b[i] - dot / a_sq * a[i] : a[i] + b[i]);
  }
  return at::stack(samples);
}

// Leaves the gradient of the objective in the parameters' .grad, which is zero before.
void backward_of(Variant const& variant, model::SceneModel const& model, model::JointBatch const& batch,
                 double velocity_factor, double render_factor) {
  auto const plain = whole_batch_losses(model, batch, variant.weighting != "separate_graphs");
  if (variant.weighting != "pcgrad") {
    torch::autograd::backward({velocity_factor * plain.velocity + render_factor * plain.render});
    return;
  }
  auto const a = gradients(velocity_factor * plain.velocity, {plain.v})[0];
  auto const b = gradients(render_factor * plain.render, {plain.v})[0];
  auto const renderer = parameters_of(model, model::Part::renderer);
  auto const of_renderer = gradients(render_factor * plain.render, renderer);
  torch::autograd::backward({plain.v}, {without_conflict(a, b)});
  for (std::size_t i = 0; i < renderer.size(); ++i) renderer[i].grad().add_(of_renderer[i]);
}

// The weights by their formulas, on the host.
class WeightsByFormula {
 public:
  WeightsByFormula(Variant variant, Config const& config) : variant_(std::move(variant)), flow_(config.flow) {}

  std::pair<double, double> of_step(int step, model::SceneModel const& model, model::JointBatch const& batch) {
    auto const plain = whole_batch_losses(model, batch);
    double const velocity = plain.velocity.item<double>(), render = plain.render.item<double>();
    auto const& name = variant_.weighting;
    if (name == "fixed") return {1, 1};
    if (name == "schedule") {
      double const done = std::min(1.0, step / static_cast<double>(flow_.warmup_steps));
      return {2 - 1.5 * done, 0.5 + 1.5 * done};
    }
    if (name == "normalized") absorb({render / (velocity + 1e-8), 1});
    if (name == "two_stage") return {1, step < flow_.velocity_only_steps ? 0 : 1};
    if (name == "alternating") return {1 - step % 2, step % 2};
    if (name == "uncertainty") return uncertainty(velocity, render);
    if (name == "normalized_each") {
      absorb({1 / (velocity + 1e-8), 1 / (render + 1e-8)});
    } else if (name == "gradient_balance") {
      bool const over_parameters = variant_.gradient_space == "parameters";
      auto const measured_in =
          over_parameters ? parameters_of(model, model::Part::editor) : std::vector<at::Tensor>{plain.v};
      double const ratio = norm(gradients(plain.render, measured_in)) / norm(gradients(plain.velocity, measured_in));
      if (over_parameters) {
        auto const before = smooth_;  // what this step measures is for the next
        if (step % flow_.gradient_interval == 0) absorb({ratio, 1});
        return before;
      }
      if (variant_.statistics == "exposed") {
        absorb({ratio, 1});
        return smooth_;
      }
      if (step > 0) absorb({last_ratio_, 1});
      last_ratio_ = ratio;
    }
    if (variant_.statistics == "current") return smooth_;
    auto const standing = standing_;
    standing_ = smooth_;
    return standing;
  }

 private:
  std::pair<double, double> uncertainty(double velocity, double render) {
    std::pair<double, double> const weights{std::exp(-s_v_), std::exp(-s_r_)};
    s_v_ -= flow_.uncertainty_lr * std::clamp(1 - weights.first * velocity, -1.0, 1.0);
    s_r_ -= flow_.uncertainty_lr * std::clamp(1 - weights.second * render, -1.0, 1.0);
    return weights;
  }
  void absorb(std::pair<double, double> const& raw) {
    double const keep = started_ ? flow_.weight_ema : 0;
    started_ = true;
    smooth_ = {keep * smooth_.first + (1 - keep) * raw.first, keep * smooth_.second + (1 - keep) * raw.second};
  }

  Variant variant_;
  FlowMatchingConfig flow_;
  std::pair<double, double> smooth_{1, 1}, standing_{1, 1};
  bool started_ = false;
  double last_ratio_ = 0, s_v_ = 0, s_r_ = 0;
};

// One process, K = 1, held to the objective at every update.
Trajectory one_process(Variant const& variant) {
  auto const shape = shape_of(variant, kBatch, 1);
  auto const config = tiny_config(shape, 1);
  auto const losses = loss_options(config);
  TinyRun run({}, shape);
  WeightsByFormula formula(variant, config);
  Trajectory trajectory;
  for (int i = 0; i < kUpdates; ++i) {
    SCOPED_TRACE("one process, update " + std::to_string(i));
    auto const batch = tiny_batch(kBatch, i);
    auto const [w_v, w_r] = formula.of_step(i, run.model(), batch);
    run.reducer().zero();
    backward_of(variant, run.model(), batch, losses.lambda_v * w_v, losses.lambda_r * w_r);
    auto const expected = unpadded(run.buffer(), run.buffer().gradients());
    EXPECT_FALSE(run.update(batch));
    trajectory.note_update(run);
    expect_objective(trajectory, expected, w_v, w_r);
  }
  return trajectory;
}

// By rank.
std::vector<Trajectory> run_ranks(int size, TinyShape const& shape) {
  std::vector<Trajectory> found(static_cast<std::size_t>(size));
  dist::run_ranks(size, [&](dist::Communicator const& group) {
    TinyRun run(group, shape);
    for (int i = 0; i < kUpdates; ++i) {
      EXPECT_FALSE(run.update(tiny_batch(shape.global_batch, i)));
      found[static_cast<std::size_t>(group.rank())].note_update(run);
    }
  });
  return found;
}

class WeightingSplitTest : public ::testing::TestWithParam<Variant> {};

TEST_P(WeightingSplitTest, EverySplitIsOneProcessWhichIsTheObjective) {
  auto const expected = one_process(GetParam());
  for (int size = 1; size <= 4; ++size)
    for (std::int64_t micro_steps : {1, 3})
      for (int zero : {0, 1}) {
        if (zero > 0 && (size < 3 || micro_steps == 1)) continue;
        SCOPED_TRACE(std::to_string(size) + " ranks, K = " + std::to_string(micro_steps) + ", zero " +
                     std::to_string(zero));
        auto shape = shape_of(GetParam(), kBatch, micro_steps);
        shape.zero = zero;
        auto const ranks = run_ranks(size, shape);
        expect_close(ranks.front(), expected);
        for (auto const& rank : ranks) expect_same_bits(rank, ranks.front());
      }
}

TEST_P(WeightingSplitTest, ReproducibleModeHasTheSameBitsAtAnyRankCount) {
  auto const run = [](int size, int zero) {
    auto shape = shape_of(GetParam(), 4, 4 / size);
    shape.reproducible = true, shape.zero = zero;
    return run_ranks(size, shape).front();
  };
  auto const expected = run(1, 0);
  for (auto const& [size, zero] : {std::pair{2, 0}, std::pair{4, 0}, std::pair{4, 1}}) {
    SCOPED_TRACE(std::to_string(size) + " ranks, zero " + std::to_string(zero));
    expect_same_bits(run(size, zero), expected);
  }
}

// A checkpoint asks for what the last update has measured (Update::drain); the run that wrote it must not notice.
TEST_P(WeightingSplitTest, ARunGoesOnFromItsCheckpointAsIfItHadWrittenNone) {
  for (std::int64_t micro_steps : {1, 3}) {
    auto const shape = shape_of(GetParam(), kBatch, micro_steps);
    auto const config = tiny_config(shape, 1);
    auto const straight = run_ranks(1, shape).front();
    TinyRun writes({}, shape), resumes({}, shape, kResumedAfter);
    Trajectory written, resumed;
    for (int i = 0; i < kUpdates; ++i) {
      writes.update(tiny_batch(kBatch, i));
      written.note_update(writes);
      if (i + 1 != kResumedAfter) continue;
      writes.settle();
      auto const state = pack_run({writes.model(), writes.buffer(), writes.optimizer(), writes.weighting()},
                                  {i + 1, 0, 0, kBatch, "data"}, config);
      unpack_run(state, {resumes.model(), resumes.buffer(), resumes.optimizer(), resumes.weighting()}, config, "data",
                 nullptr);
    }
    for (int i = kResumedAfter; i < kUpdates; ++i) {
      resumes.update(tiny_batch(kBatch, i));
      resumed.note_update(resumes);
    }
    expect_same_bits(written, straight);
    expect_same_bits(resumed, straight, kResumedAfter);
  }
}

std::string name_of(::testing::TestParamInfo<Variant> const& info) {
  auto name = info.param.weighting + info.param.statistics + info.param.gradient_space;
  std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
  return name;
}
INSTANTIATE_TEST_SUITE_P(Variants, WeightingSplitTest,
                         ::testing::Values(Variant{"fixed"}, Variant{"schedule"}, Variant{"normalized"},
                                           Variant{"normalized", "lagged"}, Variant{"normalized_each"},
                                           Variant{"normalized_each", "lagged"}, Variant{"two_stage"},
                                           Variant{"alternating"}, Variant{"separate_graphs"}, Variant{"uncertainty"},
                                           Variant{"gradient_balance"}, Variant{"gradient_balance", "lagged"},
                                           Variant{"gradient_balance", "exposed"},
                                           Variant{"gradient_balance", "current", "parameters"}, Variant{"pcgrad"}),
                         name_of);

}  // namespace
}  // namespace duoflow::launch
