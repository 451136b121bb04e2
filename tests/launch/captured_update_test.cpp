// A captured step is the step: the same bits as without, over many steps, for what an OperatorGraph can record of it;
// and what becomes of a step that cannot be captured.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "launch/run_setup.h"
#include "tests/launch/operator_graph.h"
#include "tests/launch/trajectory.h"

namespace duoflow::launch {
namespace {

constexpr int kUpdates = 8;  // three as ever, one captured, four replayed
constexpr std::int64_t kBatch = 4;

// ---- which steps can be captured

class NoTransport : public dist::Transport {
 public:
  explicit NoTransport(bool through_host) : through_host_(through_host) {}
  int rank() const override { return 0; }
  int size() const override { return 2; }
  std::string name() const override { return "a stand-in"; }
  bool moves_host_memory() const override { return through_host_; }
  dist::Pending all_reduce(at::Tensor, dist::ReduceOp) override { return {}; }
  dist::Pending reduce_scatter(at::Tensor, at::Tensor) override { return {}; }
  dist::Pending all_gather(at::Tensor, at::Tensor) override { return {}; }
  dist::Pending all_to_all(at::Tensor, at::Tensor) override { return {}; }
  dist::Pending broadcast(at::Tensor, int) override { return {}; }
  void barrier() override {}

 private:
  bool through_host_;
};

dist::Communicator ranks(bool through_host) { return dist::Communicator(std::make_shared<NoTransport>(through_host)); }

std::string why_not(std::function<void(Config&)> const& change = [](Config&) {}) {
  auto config = tiny_config({}, 1);
  change(config);
  return why_not_captured(config, ranks(false), at::kCUDA, false);
}

void expect_names(std::string const& reason, std::string const& what) {
  EXPECT_NE(reason.find(what), std::string::npos) << "\"" << reason << "\"";
  EXPECT_EQ(reason.find('\n'), std::string::npos);
}

TEST(WhyNotCapturedTest, NothingForbidsAPlainStepOnCuda) {
  EXPECT_EQ(why_not(), "");
  EXPECT_EQ(why_not_captured(tiny_config({}, 1), {}, at::kCUDA, false), "") << "alone, without a group";
}

TEST(WhyNotCapturedTest, WhatTheHostDoesNotTouchIsAllowed) {
  EXPECT_EQ(why_not([](Config& c) { c.dist.zero = 1; }), "");
  EXPECT_EQ(why_not([](Config& c) { c.dist.reproducible = true; }), "");
  EXPECT_EQ(why_not([](Config& c) { c.latents = "online"; }), "");
  EXPECT_EQ(why_not([](Config& c) { c.objective = "reconstruction", c.flow.weighting = "alternating"; }), "");
  EXPECT_EQ(why_not([](Config& c) { c.training.perceptual_crop = 32; }), "") << "no network looks at the crop";
  for (std::string const weighting :
       {"fixed", "normalized", "normalized_each", "uncertainty", "gradient_balance", "pcgrad"})
    EXPECT_EQ(why_not([&](Config& c) { c.flow.weighting = weighting, c.flow.weight_ema = 0; }), "") << weighting;
}

TEST(WhyNotCapturedTest, EveryReasonIsNamed) {
  auto const config = tiny_config({}, 1);
  expect_names(why_not_captured(config, {}, at::kCPU, false), "cpu");
  expect_names(why_not_captured(config, ranks(true), at::kCUDA, false), "a stand-in");
  expect_names(why_not_captured(config, ranks(false), at::kCUDA, true), "--profile");
  for (std::string const weighting : {"schedule", "two_stage", "alternating"})
    expect_names(why_not([&](Config& c) { c.flow.weighting = weighting, c.flow.weight_ema = 0; }), weighting);
  expect_names(why_not([](Config& c) { c.flow.weighting = "gradient_balance", c.flow.gradient_space = "parameters"; }),
               "gradient_balance");
  for (auto const weight : {&TrainingConfig::lpips_loss_weight, &TrainingConfig::perceptual_loss_weight})
    expect_names(why_not([&](Config& c) { c.training.*weight = 1, c.training.perceptual_crop = 32; }),
                 "training.perceptual_crop");
}

// ---- the same bits

struct Steps {
  std::vector<at::Tensor> parameters, statistics, norms, rates, averages, weights;

  void note(TinyRun& run) {
    parameters.push_back(unpadded(run.buffer(), run.buffer().parameters()));
    statistics.push_back(run.statistics());
    norms.push_back(run.norm().clone());
    rates.push_back(run.rate().clone());
    weights.push_back(at::stack({run.weights().velocity, run.weights().render}));
    if (run.optimizer().average().defined()) averages.push_back(run.optimizer().average().clone());
  }
};

void expect_same_bits(Steps const& found, Steps const& expected) {
  auto const compare = [](auto const& a, auto const& b, char const* what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << what << " of update " << i;
  };
  compare(found.parameters, expected.parameters, "parameters");
  compare(found.statistics, expected.statistics, "statistics");
  compare(found.norms, expected.norms, "norm");
  compare(found.rates, expected.rates, "rate");
  compare(found.weights, expected.weights, "weights");
  compare(found.averages, expected.averages, "average");
}

CapturedUpdate::MakeGraph recorder(std::int64_t fails_at = -1) {
  return [fails_at] { return std::make_unique<OperatorGraph>(fails_at); };
}

using Batches = std::function<model::JointBatch(int update)>;
model::JointBatch plain_batch(int update) { return tiny_batch(kBatch, update); }

Steps steps_of(TinyRun& run, Batches const& batch, int updates = kUpdates) {
  Steps steps;
  for (int i = 0; i < updates; ++i) {
    run.update(batch(i));
    steps.note(run);
  }
  return steps;
}

void expect_captured_is_eager(TinyShape const& shape, Batches const& batch = plain_batch) {
  TinyRun eager({}, shape), captured({}, shape);
  captured.capture_with(recorder());
  auto const expected = steps_of(eager, batch);
  EXPECT_FALSE(at::equal(expected.parameters.front(), expected.parameters.back()));
  expect_same_bits(steps_of(captured, batch), expected);
  ASSERT_EQ(captured.said().size(), 1U);
  expect_names(captured.said().front(), "step 4 is captured");
}

TEST(CapturedUpdateTest, EveryWeightingThatIsAllowedHasTheBitsOfTheEagerOne) {
  for (std::string const weighting :
       {"fixed", "normalized", "normalized_each", "uncertainty", "gradient_balance", "pcgrad"}) {
    SCOPED_TRACE(weighting);
    TinyShape shape;
    shape.weighting = weighting;
    expect_captured_is_eager(shape);
  }
}

TEST(CapturedUpdateTest, SeveralMicroStepsTheLastOneSmallerHaveTheBitsOfTheEagerOnes) {
  for (std::string const statistics : {"current", "lagged"}) {
    SCOPED_TRACE(statistics);
    TinyShape shape{5, 2};
    shape.statistics = statistics;
    expect_captured_is_eager(shape, [](int update) { return tiny_batch(5, update); });
  }
}

TEST(CapturedUpdateTest, EveryOptionOfTheStepHasTheBitsOfTheEagerOne) {
  std::vector<std::pair<char const*, std::function<void(TinyShape&)>>> const options{
      {"average and warm-up of the rate", [](TinyShape& s) { s.ema = 0.9, s.warmup = 5; }},
      {"recomputation", [](TinyShape& s) { s.recompute = true; }},
      {"frozen renderer", [](TinyShape& s) { s.train_renderer = false; }},
      {"view chunks", [](TinyShape& s) { s.view_chunk = 1; }},
      {"virtual shards", [](TinyShape& s) { s.reproducible = true, s.micro_steps = 2; }},
      {"gradients over parameters in every step",
       [](TinyShape& s) {
         s.weighting = "gradient_balance", s.gradient_space = "parameters", s.gradient_interval = 1;
       }},
      {"bf16 gradients", [](TinyShape& s) { s.bf16 = true; }},
      {"rates by parameter", [](TinyShape& s) { s.lr_scale = {"transformer_editor.*=0.3"}; }}};
  for (auto const& [name, set] : options) {
    SCOPED_TRACE(name);
    TinyShape shape;
    set(shape);
    expect_captured_is_eager(shape);
  }
}

at::Tensor waves(std::vector<std::int64_t> const& shape, double phase) {
  auto const places = at::arange(c10::multiply_integers(shape), at::kDouble);
  return 0.5 + 0.5 * (0.37 * places + phase).cos().to(at::kFloat).view(shape);
}

// Updates from pictures: of a reconstructor and a renderer, or of all three parts with latents encoded in every step.
class PicturesRun : private StepSource {
 public:
  explicit PicturesRun(std::string const& objective)
      : config_(config_of(objective)),
        plan_(plan_batches(config_.training, config_.dist, 0, 1)),
        model_(model_of(config_)),
        update_({}, model_, config_, plan_, at::kCPU, 1e-3) {}
  void capture() {
    captured_.emplace(update_, config_, plan_, true, recorder(), [](LogLevel, std::string const&) {});
  }
  Update::Result run(int number) {
    number_ = number;
    return captured_ ? captured_->run(number, *this) : update_.run(number, *this);
  }
  at::Tensor parameters() { return update_.buffer().parameters(); }

 private:
  static Config config_of(std::string const& objective) {
    auto config = tiny_config({}, 1);
    config.objective = objective, config.latents = "online";
    return config;
  }
  static model::SceneModel model_of(Config const& config) {
    auto model = tiny_model(true);
    mark_trainable(model, config);
    return model;
  }
  MicroBatch joint(std::int64_t) override {
    auto batch = plain_batch(number_);
    batch.x0 = batch.x1 = at::Tensor();
    batch.input_image = waves({kBatch, 2, 3, 16, 16}, number_), batch.relit_image = 0.5 * batch.input_image;
    batch.input_rays = waves({kBatch, 2, 6, 16, 16}, 2 * number_);
    return {batch, sample_number(0, at::kCPU)};
  }
  ReconstructionMicroBatch reconstruction(std::int64_t k) override {
    auto const batch = joint(k).first;
    return {{batch.input_image, batch.input_rays, batch.target_rays, batch.target_image}, sample_number(0, at::kCPU)};
  }
  at::Tensor flags() override { return flag_slots({}, {}, at::kCPU); }

  Config config_;
  BatchPlan plan_;
  model::SceneModel model_;
  Update update_;
  std::optional<CapturedUpdate> captured_;
  int number_ = 0;
};

TEST(CapturedUpdateTest, UpdatesFromPicturesHaveTheBitsOfTheEagerOnes) {
  for (std::string const objective : {"reconstruction", "joint"}) {
    SCOPED_TRACE(objective);
    PicturesRun eager(objective), captured(objective);
    captured.capture();
    for (int i = 0; i < kUpdates; ++i) {
      auto const before = captured.parameters().clone();
      auto const expected = eager.run(i), found = captured.run(i);
      EXPECT_TRUE(at::equal(found.statistics, expected.statistics)) << i;
      EXPECT_TRUE(at::equal(captured.parameters(), eager.parameters())) << i;
      EXPECT_FALSE(at::equal(captured.parameters(), before)) << i;
    }
  }
}

TEST(CapturedUpdateTest, ASkippedStepIsSkippedInAReplayAndNamesItsFirstSample) {
  auto const batch = [](int update) {
    auto result = plain_batch(update);
    if (update == 5) result.x1[2][0][0].fill_(std::nan(""));
    return result;
  };
  TinyRun run({}, {});
  run.capture_with(recorder());
  for (int i = 0; i < kUpdates; ++i) {
    auto const before = run.buffer().parameters().clone();
    EXPECT_EQ(run.update(batch(i)), i == 5);
    EXPECT_EQ(at::equal(run.buffer().parameters(), before), i == 5);
    EXPECT_EQ(run.statistics()[int{kFirstPerRank} + kFirstBadPosition].item<double>(), i == 5 ? 5 * kBatch + 1 : 0);
  }
  EXPECT_EQ(run.optimizer().update_count().item<float>(), kUpdates - 1);
}

TEST(CapturedUpdateTest, WhatACheckpointLearnsBetweenReplaysChangesNothing) {
  TinyShape shape;
  shape.weighting = "gradient_balance";
  TinyRun eager({}, shape), captured({}, shape);
  captured.capture_with(recorder());
  for (int i = 0; i < kUpdates; ++i) {
    eager.update(plain_batch(i));
    captured.update(plain_batch(i));
    if (i % 2 == 0) eager.settle(), captured.settle();
    EXPECT_TRUE(at::equal(captured.buffer().parameters(), eager.buffer().parameters())) << i;
    EXPECT_TRUE(at::equal(captured.weights().velocity, eager.weights().velocity)) << i;
  }
}

TEST(CapturedUpdateTest, InputsAreCopiedIntoTensorsThatStay) {
  TinyRun run({}, {});
  run.capture_with(recorder());
  void const* place = nullptr;
  for (int i = 0; i < kUpdates; ++i) {
    auto const batch = plain_batch(i);
    run.update(batch);
    EXPECT_TRUE(at::equal(run.target(), batch.target_image)) << i;
    if (i > CapturedUpdate::kWarmUpSteps) {
      EXPECT_EQ(run.target().const_data_ptr(), place) << i;
    }
    place = run.target().const_data_ptr();
  }
}

// ---- steps that are not replayed

TEST(CapturedUpdateTest, AStepOfOtherShapesRunsAsEverInBetween) {
  auto const batch = [](int update) {
    auto result = plain_batch(update);
    if (update % 2 == 1 && update > CapturedUpdate::kWarmUpSteps) {
      result.target_rays = result.target_rays.narrow(1, 0, 1);
      result.target_image = result.target_image.narrow(1, 0, 1);
    }
    return result;
  };
  TinyShape shape;
  shape.weighting = "gradient_balance";
  TinyRun eager({}, shape), captured({}, shape);
  captured.capture_with(recorder());
  auto const expected = steps_of(eager, batch);
  expect_same_bits(steps_of(captured, batch), expected);
  ASSERT_EQ(captured.said().size(), 2U);
  expect_names(captured.said().back(), "other shapes");
}

TEST(CapturedUpdateTest, ACaptureThatFailsAnywhereLeavesTheRunAsItWas) {
  TinyShape shape{5, 2};
  shape.weighting = "gradient_balance";
  auto const batch = [](int update) { return tiny_batch(5, update); };
  TinyRun eager({}, shape);
  auto const expected = steps_of(eager, batch, 6);
  std::int64_t operators = 0;
  {
    TinyRun counted({}, shape);
    OperatorGraph const* graph = nullptr;
    counted.capture_with([&graph] {
      auto made = std::make_unique<OperatorGraph>();
      graph = made.get();
      return made;
    });
    steps_of(counted, batch, 4);
    operators = graph->size();
  }
  ASSERT_GT(operators, 100);
  for (std::int64_t const part : {0, 1, 2, 4, 6, 7, 8}) {
    SCOPED_TRACE(part);
    TinyRun run({}, shape);
    run.capture_with(recorder(std::min(part * operators / 8, operators - 1)));
    expect_same_bits(steps_of(run, batch, 6), expected);
    ASSERT_EQ(run.said().size(), 1U);
    expect_names(run.said().front(), "a device that records no more");
    expect_names(run.said().front(), "training.cuda_graph");
  }
}

TEST(CapturedUpdateTest, ACaptureThatFailsBesideOtherRanksEndsTheRun) {
  TinyRun run({}, {});
  run.capture_with(recorder(50), /*alone=*/false);
  for (int i = 0; i < CapturedUpdate::kWarmUpSteps; ++i) run.update(plain_batch(i));
  try {
    run.update(plain_batch(CapturedUpdate::kWarmUpSteps));
    FAIL() << "went on";
  } catch (std::runtime_error const& error) {
    expect_names(error.what(), "a device that records no more");
    expect_names(error.what(), "set training.cuda_graph=false");
  }
}

// The recorder does see what may not be captured: a weight that the host takes from the number of the step.
TEST(CapturedUpdateTest, AStepThatDependsOnItsNumberIsNotTheSameWhenReplayed) {
  TinyShape shape;
  shape.weighting = "alternating";
  TinyRun eager({}, shape), captured({}, shape);
  captured.capture_with(recorder());
  auto const expected = steps_of(eager, plain_batch), found = steps_of(captured, plain_batch);
  EXPECT_TRUE(at::equal(found.parameters[3], expected.parameters[3]));
  EXPECT_FALSE(at::equal(found.parameters[4], expected.parameters[4]));
}

}  // namespace
}  // namespace duoflow::launch
