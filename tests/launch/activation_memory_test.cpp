#include "benchmarks/memory/activation_memory.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "launch/memory_estimate.h"
#include "model/activation_bytes.h"

namespace duoflow::launch {
namespace {

std::string const kRecompute = "training.grad_checkpoint_every=1", kOneByOne = "training.render_view_chunk=1",
                  kTwoSamples = "training.batch_size_per_gpu=2";

// Bytes at the small configuration, the quickstart's second stage: one target view, eight samples a micro-step.
double peak(std::vector<std::string> const& overrides) {
  return static_cast<double>(
      peak_of_joint_step(load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", overrides)));
}
std::string views(int count) { return "training.num_target_views=" + std::to_string(count); }

TEST(ActivationMemoryTest, RecomputingBlocksTakesTwoFifthsOfKeepingAll) {
  double const all = peak({}), recomputed = peak({kRecompute});
  EXPECT_GT(all / recomputed, 2.5) << all << " and " << recomputed;
}

TEST(ActivationMemoryTest, RecomputingOnePartOfTheBlocksTakesLessThanKeepingIt) {
  double const all = peak({kTwoSamples});
  for (auto const* part : {"attention", "mlp"})
    EXPECT_LT(peak({kTwoSamples, kRecompute, std::string("training.grad_checkpoint_part=") + part}), 0.87 * all)
        << part;
}

// Beyond one view's only the pictures themselves grow, which the log shows: 64 x 64 pixels a view, in fp32.
TEST(ActivationMemoryTest, ViewsOneByOneTakeTheMemoryOfOneHoweverManyThereAre) {
  double const one = peak({kTwoSamples, views(1)});
  EXPECT_GT(peak({kTwoSamples, views(4)}), 1.8 * one);
  EXPECT_LT(peak({kTwoSamples, views(4), kOneByOne}), 1.04 * one);
  EXPECT_LT(peak({kTwoSamples, views(12), kOneByOne}), 1.12 * one);
}

// The prediction that `train --estimate` prints, against the allocator's count.
TEST(ActivationMemoryTest, IsPredictedWithinATenth) {
  std::vector<std::vector<std::string>> const cases = {
      {},
      {kTwoSamples, views(4)},
      {kTwoSamples, views(3), "training.freeze_reconstructor_renderer=false"},
      {kTwoSamples, views(3), "training.use_amp=false"},
      {kTwoSamples, views(3), "training.use_amp=false", "training.freeze_reconstructor_renderer=false"},
      {kTwoSamples, "model.transformer.d=256", "model.transformer.editor.n_layer=5"},
      {kTwoSamples, "model.transformer.n_latent_vectors=320", "model.transformer.decoder_n_layer=1"},
      {kTwoSamples, "model.image_tokenizer.patch_size=4", "model.transformer.use_qk_norm=false"},
      {kTwoSamples, views(4), kOneByOne}};
  for (auto const& overrides : cases) {
    auto const config = load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", overrides);
    auto const& t = config.training;
    double const predicted = model::activation_bytes(config.model, {t.batch_size_per_gpu, t.num_target_views, t.render_view_chunk, true,
                                                                    trains(config, model::Part::renderer), true}).peak();
    double const counted = static_cast<double>(peak_of_joint_step(config));
    EXPECT_NEAR(predicted / counted, 1, 0.1) << fmt::format("{}", fmt::join(overrides, " "));
  }
}

// Attention as a GPU has it: no scores are kept, the CPU's own kernel of it neither.
TEST(ActivationMemoryTest, IsPredictedWithinATenthWithoutScores) {
  auto config = load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", {kTwoSamples, views(4)});
  model::ActivationShape shape{config.training.batch_size_per_gpu, 4};
  shape.on_cpu = false;
  double const predicted = model::activation_bytes(config.model, shape).peak();
  shape.fused = false;
  EXPECT_GT(model::activation_bytes(config.model, shape).peak(), 1.1 * predicted) << "ATen's operators keep more";
  config.model.attention = model::AttentionPath::sdpa;
  EXPECT_NEAR(predicted / static_cast<double>(peak_of_joint_step(config)), 1, 0.1);
}

// Where blocks are run again most of the peak is one block at work, which is not followed tensor by tensor.
TEST(ActivationMemoryTest, OfRecomputedBlocksIsPredictedWithinAQuarter) {
  for (auto const& overrides : std::vector<std::vector<std::string>>{
           {kRecompute}, {kTwoSamples, kRecompute, views(4)}, {kTwoSamples, kRecompute, views(4), kOneByOne}}) {
    auto const config = load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", overrides);
    auto const& t = config.training;
    double const predicted = model::activation_bytes(config.model, {t.batch_size_per_gpu, t.num_target_views, t.render_view_chunk}).peak();
    EXPECT_NEAR(predicted / static_cast<double>(peak_of_joint_step(config)), 1, 0.25) << fmt::format("{}", fmt::join(overrides, " "));
  }
}

double bytes_of(MemoryEstimate const& estimate, std::string const& name) {
  for (auto const& part : estimate.parts)
    if (part.name.starts_with(name)) return part.device_bytes + part.host_bytes;
  return -1;
}

TEST(MemoryEstimateTest, CountsParametersAndSharesMomentsOverTheRanksOfZero) {
  auto const estimate = [](int ranks, std::vector<std::string> overrides) {
    return estimate_memory(load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", overrides), ranks, true);
  };
  auto const config = load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", {});
  auto const model = make_model(config, at::kCPU, false);
  std::int64_t all = 0, trainable = 0;
  for (auto const& parameter : model.parameters()) {
    all += parameter.tensor.numel();
    if (parameter.tensor.requires_grad()) trainable += parameter.tensor.numel();
  }
  auto const one = estimate(1, {});
  EXPECT_EQ(one.parameters, all);
  EXPECT_EQ(one.trainable, trainable);
  double const bytes = 4.0 * static_cast<double>(trainable);
  EXPECT_EQ(bytes_of(one, "gradients"), bytes);
  EXPECT_EQ(bytes_of(one, "moments"), 2 * bytes);
  EXPECT_EQ(bytes_of(estimate(4, {}), "moments"), 2 * bytes);
  EXPECT_EQ(bytes_of(estimate(4, {"dist.zero=1"}), "moments"), bytes / 2);
  EXPECT_EQ(bytes_of(estimate(4, {"dist.zero=1", "training.ema_decay=0.99"}), "average"), bytes / 4);
  EXPECT_EQ(bytes_of(estimate(4, {}), "checkpoint"), 3 * bytes / 4);
  EXPECT_EQ(bytes_of(estimate(1, {"training.checkpoint_async=false"}), "checkpoint"), 0);
}

// The optimizer's of all that trains; of the rest what the model makes, as the allocator counts it.
TEST(MemoryEstimateTest, CountsWeightsInBf16OfThePartsThatRun) {
  auto const row = [](std::vector<std::string> overrides) {
    auto const config = load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", overrides);
    auto model = make_model(config, at::kCPU, false);
    std::map<std::string, at::Tensor> kept;
    double bytes = 0;
    for (auto const& parameter : model.parameters()) {
      if (!parameter.trainable || !parameter.tensor.requires_grad()) continue;
      bytes += 2.0 * static_cast<double>(parameter.tensor.numel());
      kept.emplace(parameter.name, parameter.tensor.detach().to(at::kBFloat16));
    }
    auto const made = std::make_shared<PeakMemory>();
    {
      c10::DebugInfoGuard const guard(c10::DebugInfoKind::PROFILER_STATE, made);
      model.round_weights(kept, running_parts(config));
    }
    EXPECT_EQ(bytes_of(estimate_memory(config, 1, true), "weights in bf16"), bytes + static_cast<double>(made->peak()))
        << fmt::format("{}", fmt::join(overrides, " "));
    return static_cast<double>(made->peak());
  };
  double const renderer = row({});
  EXPECT_GT(renderer, 0);
  EXPECT_GT(row({"latents=online"}), renderer) << "and the reconstructor's";
  EXPECT_EQ(row({"latents=online", "training.freeze_reconstructor_renderer=false"}), 0) << "all train";
  auto const none = load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", {"training.use_amp=false"});
  EXPECT_EQ(bytes_of(estimate_memory(none, 1, true), "weights in bf16"), 0);
}

TEST(MemoryEstimateTest, MemoryThatRunsOutIsReportedWithTheTable) {
  auto const config = load_config(DUOFLOW_SOURCE_DIR "/configs/quickstart_joint.yaml", {});
  auto const more_than_there_is = [] {
    static_cast<void>(at::empty({std::int64_t{1} << 60}, at::kByte));
    return 0;
  };
  try {
    with_memory_advice(config, 1, true, more_than_there_is);
    FAIL() << "there is more memory than addresses";
  } catch (std::runtime_error const& error) {
    for (auto const* text : {"out of memory", "activations", "training.grad_checkpoint_every=1"})
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
  EXPECT_EQ(with_memory_advice(config, 1, true, [] { return 75; }), 75);
  EXPECT_THROW(with_memory_advice(config, 1, true, []() -> int { throw ConfigError("another"); }), ConfigError);
}

}  // namespace
}  // namespace duoflow::launch
