#include "launch/run_state.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/error.h"
#include "dist/thread_backend.h"
#include "launch/checkpoint_weights.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::launch {
namespace {

TinyShape const kShape{4, 1, true};

Config tiny_config() {
  Config config;
  config.model = tiny_options();
  config.env_image_size = config.model.env_height;
  config.training.warmup = 3;
  config.training.freeze_reconstructor_renderer = false;
  config.flow.weighting = "normalized";
  config.flow.normalize_losses = true;  // as loading a config would leave it
  return config;
}

RunTensors tensors_of(TinyRun& run) { return {run.model(), run.buffer(), run.optimizer(), run.weighting()}; }

// A checkpoint never shares memory with the run that wrote it.
dist::CheckpointState copy_of(dist::CheckpointState state) {
  for (auto* tensors : {&state.model, &state.state})
    for (auto& [name, tensor] : *tensors) tensor = tensor.detach().clone();
  return state;
}

struct Saved {
  TinyRun run{{}, kShape};
  dist::CheckpointState state;
  Saved() {
    for (int i = 0; i < 3; ++i) run.update(tiny_batch(4, i));
    state = copy_of(pack_run(tensors_of(run), {3, 12, 1, 4, "data-a"}, tiny_config()));
  }
};

std::vector<at::Tensor> bits_of(TinyRun& run) {
  std::vector<at::Tensor> bits{run.buffer().parameters().clone(), run.optimizer().exp_avg().clone(),
                               run.optimizer().exp_avg_sq().clone(), run.optimizer().update_count().clone()};
  for (auto const& [name, tensor] : run.weighting().state()) bits.push_back(tensor.clone());
  for (auto const& parameter : run.model().parameters()) bits.push_back(parameter.tensor.detach().clone());
  return bits;
}

void expect_same_bits(std::vector<at::Tensor> const& a, std::vector<at::Tensor> const& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << i;
}

std::string refusal(dist::CheckpointState const& state, Config const& config,
                    std::string const& fingerprint = "data-a") {
  TinyRun fresh({}, kShape);
  try {
    unpack_run(state, tensors_of(fresh), config, fingerprint, nullptr);
  } catch (dist::CheckpointError const& error) {
    return error.what();
  }
  return "accepted";
}

void expect_refusal(std::string const& message, std::vector<std::string> const& parts) {
  for (auto const& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "\"" << part << "\" is not in: " << message;
}

TEST(RunStateTest, UnpackingRestoresEveryBit) {
  Saved saved;
  TinyRun other({}, kShape);
  other.update(tiny_batch(4, 9));
  std::vector<std::string> changes{"left over"};
  auto const counters = unpack_run(saved.state, tensors_of(other), tiny_config(), "data-a", &changes);
  EXPECT_EQ(counters.step, 3);
  EXPECT_EQ(counters.samples, 12);
  EXPECT_EQ(counters.skips_in_a_row, 1);
  EXPECT_EQ(counters.data_fingerprint, "data-a");
  EXPECT_TRUE(changes.empty());
  expect_same_bits(bits_of(other), bits_of(saved.run));
}

TEST(RunStateTest, ARestoredRunGoesOnAsIfItHadNotStopped) {
  Saved saved;
  TinyRun other({}, kShape);
  unpack_run(saved.state, tensors_of(other), tiny_config(), "data-a", nullptr);
  for (int i = 3; i < 5; ++i) {
    saved.run.update(tiny_batch(4, i));
    other.update(tiny_batch(4, i));
  }
  expect_same_bits(bits_of(other), bits_of(saved.run));
}

TEST(RunStateTest, TheParametersStayViewsOfTheFlatBuffer) {
  Saved saved;
  TinyRun other({}, kShape);
  unpack_run(saved.state, tensors_of(other), tiny_config(), "data-a", nullptr);
  for (auto const& tensor : other.buffer().tensors()) EXPECT_TRUE(tensor.is_alias_of(other.buffer().parameters()));
}

TEST(RunStateTest, TheCheckpointHoldsFrozenPartsAndNamesMomentsByParameter) {
  Saved saved;
  EXPECT_EQ(saved.state.step, 3);
  EXPECT_EQ(saved.state.model.size(), saved.run.model().parameters().size());
  for (auto const& range : saved.run.buffer().ranges())
    for (auto const* moment : {"exp_avg.", "exp_avg_sq."}) {
      auto const found = std::find_if(saved.state.state.begin(), saved.state.state.end(),
                                      [&](auto const& named) { return named.name == moment + range.name; });
      ASSERT_NE(found, saved.state.state.end()) << moment << range.name;
      EXPECT_EQ(found->tensor.sizes().vec(), range.shape);
    }
}

TinyShape averaged_shape() {
  auto shape = kShape;
  shape.ema = 0.9;
  return shape;
}

TEST(RunStateTest, TheAverageIsStoredByNameAndRestoredToTheBit) {
  TinyRun run({}, averaged_shape());
  for (int i = 0; i < 3; ++i) run.update(tiny_batch(4, i));
  auto const state = copy_of(pack_run(tensors_of(run), {3, 12, 0, 4, "data-a"}, tiny_config()));
  for (auto const& range : run.buffer().ranges())
    EXPECT_TRUE(std::any_of(state.state.begin(), state.state.end(), [&](auto const& named) {
      return named.name == "ema." + range.name && named.tensor.sizes().vec() == range.shape;
    })) << range.name;
  TinyRun other({}, averaged_shape());
  other.update(tiny_batch(4, 9));
  unpack_run(state, tensors_of(other), tiny_config(), "data-a", nullptr);
  EXPECT_TRUE(at::equal(other.optimizer().average(), run.optimizer().average()));
  run.update(tiny_batch(4, 3));
  other.update(tiny_batch(4, 3));
  EXPECT_TRUE(at::equal(other.optimizer().average(), run.optimizer().average()));
  EXPECT_FALSE(at::equal(other.optimizer().average(), other.buffer().parameters()));
}

TEST(RunStateTest, AnAverageTurnedOnLaterStartsAtTheWeightsAndSaysSo) {
  Saved saved;
  TinyRun other({}, averaged_shape());
  other.update(tiny_batch(4, 9));
  std::vector<std::string> changes;
  unpack_run(saved.state, tensors_of(other), tiny_config(), "data-a", &changes);
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_NE(changes[0].find("no average of the weights"), std::string::npos);
  EXPECT_TRUE(at::equal(other.optimizer().average(), saved.run.buffer().parameters()));
}

TEST(RunStateTest, AveragesThatTheRunDoesNotKeepAreDroppedAndCounted) {
  TinyRun run({}, averaged_shape());
  run.update(tiny_batch(4, 0));
  auto const state = copy_of(pack_run(tensors_of(run), {1, 4, 0, 4, "data-a"}, tiny_config()));
  auto const all = run.buffer().ranges().size();
  auto fewer = averaged_shape();
  fewer.freeze = {"env_tokenizer.*"};
  TinyRun frozen({}, fewer), plain({}, kShape);
  auto const kept = frozen.buffer().ranges().size();
  ASSERT_LT(kept, all);
  for (auto const& [other, dropped] : {std::pair{&frozen, all - kept}, std::pair{&plain, all}}) {
    std::vector<std::string> changes;
    unpack_run(state, tensors_of(*other), tiny_config(), "data-a", &changes);
    ASSERT_EQ(changes.size(), 1U);
    EXPECT_TRUE(changes[0].starts_with(std::to_string(dropped) + " averages of weights are dropped")) << changes[0];
  }
}

TEST(RunStateTest, TheWeightsOfACheckpointAreChosen) {
  TinyRun run({}, averaged_shape());
  for (int i = 0; i < 2; ++i) run.update(tiny_batch(4, i));
  auto const stored = copy_of(pack_run(tensors_of(run), {2, 8, 0, 4, "data-a"}, tiny_config()));
  for (auto const choice : {WeightsChoice::automatic, WeightsChoice::ema, WeightsChoice::trained}) {
    auto state = stored;
    bool const averaged = choice != WeightsChoice::trained;
    EXPECT_EQ(choose_weights(state, choice, "CK"), averaged);
    ASSERT_EQ(state.model.size(), stored.model.size());
    for (std::size_t i = 0; i < state.model.size(); ++i) {
      auto const& name = state.model[i].name;
      auto const average = std::find_if(stored.state.begin(), stored.state.end(),
                                        [&](auto const& named) { return named.name == "ema." + name; });
      bool const trained = average != stored.state.end();
      EXPECT_TRUE(at::equal(state.model[i].tensor, averaged && trained ? average->tensor : stored.model[i].tensor))
          << name;
    }
  }
  auto without = stored;
  std::erase_if(without.state, [](auto const& named) { return named.name.starts_with("ema."); });
  EXPECT_FALSE(choose_weights(without, WeightsChoice::automatic, "CK"));
  EXPECT_THROW(choose_weights(without, WeightsChoice::ema, "CK"), dist::CheckpointError);
  EXPECT_THROW(weights_choice("best", "--weights"), ConfigError);
}

// What ZeRO-1 saves must not come back at a checkpoint.
TEST(RunStateTest, ARankOfZeroBringsWhatItWritesInMemoryThatItHas) {
  constexpr int kRanks = 4;
  auto shape = averaged_shape();
  shape.zero = 1;
  std::vector<std::string> const prefixes = {"exp_avg.", "exp_avg_sq.", "ema."};
  std::vector<dist::CheckpointState> brought(kRanks);
  std::vector<at::Tensor> whole(prefixes.size());
  std::vector<dist::FlatRange> ranges;
  dist::run_ranks(kRanks, [&](dist::Communicator const& group) {
    TinyRun run(group, shape);
    for (int i = 0; i < 2; ++i) run.update(tiny_batch(4, i));
    auto const state = pack_run(tensors_of(run), {2, 8, 0, 4, "data-a"}, tiny_config());
    for (auto const& [name, tensor] : state.state) {
      bool const of_optimizer = name.starts_with("exp_avg") || name.starts_with("ema.");
      EXPECT_TRUE(!of_optimizer || tensor.is_meta() || tensor.is_alias_of(run.buffer().gradients())) << name;
    }
    brought[static_cast<std::size_t>(group.rank())] = copy_of(state);
    auto const& optimizer = run.optimizer();
    std::vector<at::Tensor> const own = {optimizer.exp_avg(), optimizer.exp_avg_sq(), optimizer.average()};
    for (std::size_t kind = 0; kind < prefixes.size(); ++kind) {
      auto const values = at::empty({run.buffer().size()});
      optimizer.gather(own[kind], 0, {values});
      if (group.rank() == 0) whole[kind] = values;
    }
    if (group.rank() == 0) ranges = run.buffer().ranges();
  });
  std::vector<std::int64_t> elements(kRanks, 0);
  for (std::size_t i = 0; i < prefixes.size() * ranges.size(); ++i) {
    auto const kind = i % prefixes.size();
    auto const& range = ranges[i / prefixes.size()];
    int bringers = 0;
    for (std::size_t rank = 0; rank < kRanks; ++rank) {
      auto const& [name, tensor] = brought[rank].state[i];
      EXPECT_EQ(name, prefixes[kind] + range.name);
      EXPECT_EQ(tensor.sizes().vec(), range.shape);
      if (tensor.is_meta()) continue;
      ++bringers;
      elements[rank] += range.numel;
      EXPECT_TRUE(at::equal(tensor.flatten(), whole[kind].narrow(0, range.offset, range.numel))) << name;
    }
    EXPECT_EQ(bringers, 1) << range.name;
  }
  auto const all = std::accumulate(elements.begin(), elements.end(), std::int64_t{0});
  for (auto const mine : elements)
    EXPECT_NEAR(static_cast<double>(mine), static_cast<double>(all) / kRanks, 0.1 * static_cast<double>(all));
}

TEST(RunStateTest, OtherDataAreRefusedWithBothFingerprints) {
  Saved saved;
  expect_refusal(refusal(saved.state, tiny_config(), "data-b"), {"step 3", "data-a", "data-b"});
}

TEST(RunStateTest, AnotherObjectiveIsRefused) {
  Saved saved;
  auto config = tiny_config();
  config.objective = "reconstruction";
  expect_refusal(refusal(saved.state, config), {"joint", "reconstruction"});
}

TEST(RunStateTest, AMissingStateTensorIsNamed) {
  Saved saved;
  auto const parameter = saved.run.buffer().ranges().front().name;
  for (auto const& name : {"exp_avg." + parameter, "exp_avg_sq." + parameter, std::string("update_count"),
                           std::string("weighting.velocity_weight")}) {
    auto state = saved.state;
    ASSERT_EQ(std::erase_if(state.state, [&](auto const& named) { return named.name == name; }), 1u) << name;
    expect_refusal(refusal(state, tiny_config()), {name, "step 3"});
  }
}

TEST(RunStateTest, AStateTensorOfAnotherShapeIsNamed) {
  Saved saved;
  auto& [name, tensor] = saved.state.state.front();
  tensor = at::zeros({1, 2, 3});
  expect_refusal(refusal(saved.state, tiny_config()), {name});
}

TEST(RunStateTest, AMissingModelTensorIsNamed) {
  Saved saved;
  auto const name = saved.state.model.back().name;
  saved.state.model.pop_back();
  expect_refusal(refusal(saved.state, tiny_config()), {name, "step 3"});
}

TEST(RunStateTest, ChangesOfTheConfigAreListedKeyByKey) {
  Saved saved;
  auto config = tiny_config();
  config.training.lr = 0.125;
  config.data.verify = "always";
  TinyRun fresh({}, kShape);
  std::vector<std::string> changes;
  unpack_run(saved.state, tensors_of(fresh), config, "data-a", &changes);
  std::sort(changes.begin(), changes.end());
  EXPECT_EQ(changes,
            (std::vector<std::string>{"data.verify: \"first_touch\" -> \"always\"", "training.lr: 0.0004 -> 0.125"}));
}

TEST(RunStateTest, AnotherWeightingStartsAnewAndIsListed) {
  Saved saved;
  auto shape = kShape;
  shape.statistics = "lagged";
  TinyRun other({}, shape);
  auto config = tiny_config();
  config.flow.statistics = "lagged";
  std::vector<std::string> changes;
  unpack_run(saved.state, tensors_of(other), config, "data-a", &changes);
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_NE(changes[0].find("statistics: "), std::string::npos);
  EXPECT_EQ(other.weighting().standing_weights()->velocity.item<float>(), 1);
}

TEST(RunStateTest, ALaggedStrategyStartsAnewInPlaceOfAnotherLaggedOne) {
  auto shape = kShape;
  shape.statistics = "lagged";
  auto config = tiny_config();
  config.flow.statistics = "lagged";
  TinyRun before({}, shape);
  for (int i = 0; i < 3; ++i) before.update(tiny_batch(4, i));
  auto const state = copy_of(pack_run(tensors_of(before), {3, 12, 1, 4, "data-a"}, config));
  ASSERT_NE(before.weighting().standing_weights()->velocity.item<float>(), 1);

  shape.weighting = config.flow.weighting = "normalized_each";
  config.flow.normalize_losses = false;
  TinyRun other({}, shape);
  unpack_run(state, tensors_of(other), config, "data-a", nullptr);
  EXPECT_EQ(other.weighting().standing_weights()->velocity.item<float>(), 1);
  EXPECT_EQ(other.weighting().standing_weights()->render.item<float>(), 1);
}

TEST(RunStateTest, AnImportedCheckpointGoesOnWithAnyDataAndTheWeightingStartsAnew) {
  Saved saved;
  auto& json = saved.state.counters_json;
  json.insert(1, "\"imported\":true,");
  auto const ahead = json.find("\"schedule_ahead\":0");
  ASSERT_NE(ahead, json.npos);
  json.replace(ahead, 18, "\"schedule_ahead\":2");
  std::erase_if(saved.state.state, [](auto const& named) { return named.name.starts_with("weighting."); });
  TinyRun other({}, kShape);
  auto const counters = unpack_run(saved.state, tensors_of(other), tiny_config(), "data-b", nullptr);
  EXPECT_EQ(counters.data_fingerprint, "data-b");
  EXPECT_EQ(counters.schedule_ahead, 2);
  EXPECT_TRUE(at::equal(other.optimizer().exp_avg(), saved.run.optimizer().exp_avg()));
}

TEST(RunStateTest, OtherHardwareIsListed) {
  Saved saved;
  TinyRun other({}, kShape);
  auto& json = saved.state.counters_json;
  auto const at = json.find("\"hardware\":\"") + 12;
  json.insert(at, "another ");
  std::vector<std::string> changes;
  unpack_run(saved.state, tensors_of(other), tiny_config(), "data-a", &changes);
  ASSERT_EQ(changes.size(), 1U);
  EXPECT_NE(changes[0].find("hardware: another "), std::string::npos);
}

TEST(RunStateTest, OtherWeightsOfTheLossNetworksAndAnotherGlobalBatchAreListed) {
  TinyRun run({}, kShape), other({}, kShape);
  Counters counters{3, 12, 0, 4, "data-a"};
  counters.loss_networks = "lpips aa, vgg19 bb";
  auto const state = copy_of(pack_run(tensors_of(run), counters, tiny_config()));
  auto const stored = unpack_run(state, tensors_of(other), tiny_config(), "data-a", nullptr);
  EXPECT_TRUE(changes_beside_config(stored, 4, "lpips aa, vgg19 bb").empty());
  EXPECT_TRUE(changes_beside_config(stored, 4, "").empty());  // weights of 0 in the config: listed as its change
  EXPECT_EQ(changes_beside_config(stored, 8, "lpips aa, vgg19 cc"),
            (std::vector<std::string>{"global batch: 4 -> 8",
                                      "weights of the render loss's networks: lpips aa, vgg19 bb -> lpips aa, vgg19 cc "
                                      "(the loss is another function)"}));
}

TEST(RunStateTest, CountersThatAreNoneAreErrors) {
  Saved saved;
  auto const whole = saved.state.counters_json;
  std::string const entry = "\"samples\":12";
  auto const at = whole.find(entry);
  ASSERT_NE(at, whole.npos);
  for (std::string const value : {"-1", "1e300", "0.5", "9007199254740993", "\"12\"", "null", "[]"}) {
    saved.state.counters_json = whole;
    saved.state.counters_json.replace(at, entry.size(), "\"samples\":" + value);
    TinyRun other({}, kShape);
    EXPECT_THROW(unpack_run(saved.state, tensors_of(other), tiny_config(), "data-a", nullptr), dist::CheckpointError)
        << value;
  }
}

// A checkpoint from before the key.
TEST(RunStateTest, ACheckpointThatKnowsNoLossNetworksIsGoneOnWith) {
  Saved saved;
  auto& json = saved.state.counters_json;
  std::string const entry = "\"loss_networks\":\"\",";
  auto const at = json.find(entry);
  ASSERT_NE(at, json.npos);
  json.erase(at, entry.size());
  TinyRun other({}, kShape);
  auto const stored = unpack_run(saved.state, tensors_of(other), tiny_config(), "data-a", nullptr);
  EXPECT_TRUE(changes_beside_config(stored, 4, "lpips aa").empty());
}

}  // namespace
}  // namespace duoflow::launch
