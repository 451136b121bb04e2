#include "model/reference_checkpoint/reference_checkpoint.h"

#include <cmath>
#include <fstream>
#include <sstream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/fuzz/bytes.h"
#include "tests/model/reference_checkpoint/bytes_in_memory.h"

namespace duoflow::model::test {
namespace {

std::string written(ReferenceCheckpoint const& checkpoint) {
  std::string bytes;
  write_reference_checkpoint(checkpoint, [&bytes](void const* data, std::size_t count) {
    bytes.append(static_cast<char const*>(data), count);
  });
  return bytes;
}

ReferenceCheckpoint read(std::string const& bytes) { return read_reference_checkpoint(BytesInMemory(bytes)); }

ReferenceCheckpoint example() {
  ReferenceCheckpoint checkpoint;
  checkpoint.model = {{"a", at::arange(6, at::kFloat).view({2, 3})}, {"b", at::ones({3})}, {"c", at::full({}, 0.25)}};
  ReferenceOptimizer optimizer;
  optimizer.groups = {{0.01, 0.1, 0.9, 0.95, 1e-8, 0.05, false, false, {0, 1}},
                      {0.01, 0.1, 0.9, 0.95, 1e-8, 0, false, false, {2}}};
  optimizer.state[0] = {3, at::rand({2, 3}), at::rand({2, 3})};
  optimizer.state[2] = {3, at::rand({3}), at::rand({3})};
  checkpoint.optimizer = optimizer;
  checkpoint.scheduler_steps = 5;
  checkpoint.forward_passes = 1ll << 40;
  checkpoint.updates = 3;
  return checkpoint;
}

TEST(ReferenceCheckpointTest, WhatIsWrittenIsRead) {
  auto const one = example(), two = read(written(one));
  ASSERT_EQ(two.model.size(), one.model.size());
  for (std::size_t i = 0; i < one.model.size(); ++i) {
    EXPECT_EQ(two.model[i].first, one.model[i].first);
    EXPECT_TRUE(at::equal(two.model[i].second, one.model[i].second));
    EXPECT_EQ(two.model[i].second.sizes(), one.model[i].second.sizes());
  }
  ASSERT_EQ(two.optimizer->groups.size(), 2u);
  EXPECT_EQ(two.optimizer->groups[0].parameters, (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(two.optimizer->groups[1].weight_decay, 0);
  EXPECT_EQ(two.optimizer->groups[0].beta2, 0.95);
  EXPECT_EQ(two.optimizer->groups[0].initial_lr, 0.1);
  ASSERT_EQ(two.optimizer->state.size(), 2u);
  EXPECT_TRUE(at::equal(two.optimizer->state.at(2).exp_avg_sq, one.optimizer->state.at(2).exp_avg_sq));
  EXPECT_EQ(two.optimizer->state.at(0).step, 3);
  EXPECT_EQ(two.scheduler_steps, 5);
  EXPECT_EQ(two.forward_passes, 1ll << 40);
  EXPECT_EQ(two.updates, 3);
}

TEST(ReferenceCheckpointTest, TheOptimizerNumbersOneDimensionalParametersLast) {
  auto const two = at::zeros({2, 2}), one = at::zeros({2}), none = at::zeros({});
  EXPECT_EQ(optimizer_order({{"a", one}, {"b", two}, {"c", one}, {"d", none}}),
            (std::vector<std::string>{"b", "d", "a", "c"}));
}

TEST(ReferenceCheckpointTest, WrappersNamesAreTakenOffAndTwoOfOneNameAreAnError) {
  ReferenceCheckpoint wrapped;
  wrapped.model = {{"module.module.a", at::ones({1})}};
  EXPECT_EQ(read(written(wrapped)).model[0].first, "a");
  wrapped.model = {{"module.a", at::ones({1})}, {"a", at::ones({1})}};
  EXPECT_NE(format_error([&] { read(written(wrapped)); }).find("a is twice"), std::string::npos);
}

// A state dict of one tensor of these sizes and strides, over a record of one number.
std::string one_number_as(std::string const& sizes, std::string const& strides) {
  using namespace std::string_literals;
  return fuzz::zip_of_entries(
      {{"a/data.pkl",
        "}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"
        "0X\x03\0\0\0cpuK\x01tQK\0"s +
            sizes + strides + "\x89NtRs."},
       {"a/data/0", "\0\0\x80\x3f"s}});
}

TEST(ReferenceCheckpointTest, SizesBeyondTheRecordAreErrorsBeforeMemoryIsTaken) {
  using namespace std::string_literals;
  std::string const large = "\x8a\x08\0\0\0\0\0\0\0\x40"s;  // 2^62
  EXPECT_EQ(read(one_number_as("K\x01\x85"s, "K\x07\x85"s)).model[0].second.item<float>(), 1);
  EXPECT_NE(format_error([&] { read(one_number_as("K\x02\x85"s, "K\x01\x85"s)); }).find("does not fit"),
            std::string::npos);
  EXPECT_NE(format_error([&] { read(one_number_as(large + "\x85", "K\0\x85"s)); }).find("repeats the 1 numbers"),
            std::string::npos);
  EXPECT_NE(format_error([&] { read(one_number_as(large + "K\x08K\0\x87"s, "K\0K\0K\0\x87"s)); }).find("does not fit"),
            std::string::npos);
}

TEST(ReferenceCheckpointTest, CountsOfStepsThatCannotBeAreErrors) {
  auto checkpoint = example();
  checkpoint.scheduler_steps = -1;
  EXPECT_NE(format_error([&] { read(written(checkpoint)); }).find("a count of steps"), std::string::npos);
  checkpoint = example();
  checkpoint.updates = 1ll << 62;
  EXPECT_NE(format_error([&] { read(written(checkpoint)); }).find("a count of steps"), std::string::npos);
  checkpoint = example();
  checkpoint.optimizer->state[0].step = std::nan("");
  EXPECT_NE(format_error([&] { read(written(checkpoint)); }).find("a count of steps"), std::string::npos);
}

TEST(ReferenceCheckpointTest, EveryCutIsAnError) {
  auto const bytes = written(example());
  for (std::size_t size = 0; size < bytes.size(); size += 1 + size % 7)
    EXPECT_NE(format_error([&] { read(bytes.substr(0, size)); }), "") << size;
}

TEST(ReferenceCheckpointTest, EveryChangedByteIsAnErrorOrHarmless) {
  auto const bytes = written(example());
  for (std::size_t i = 0; i < bytes.size(); ++i)
    for (int const change : {0x01, 0x40, 0xff}) {
      auto changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ change);
      format_error([&] { read(changed); });
    }
}

// Of torch.save (tests/golden/make_reference_checkpoint.py): a state dict with tensors that share a storage and
// transposed ones, two types of number, an optimizer and a schedule after two updates.
TEST(ReferenceCheckpointTest, AFileOfTorchIsRead) {
  std::stringstream bytes;
  bytes << std::ifstream(DUOFLOW_SOURCE_DIR "/tests/golden/reference_checkpoint.pt", std::ios::binary).rdbuf();
  auto const checkpoint = read(bytes.str());
  std::vector<std::string> names;
  for (auto const& [name, tensor] : checkpoint.model) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"weight", "bias", "noise_scale_ema", "half", "brain", "transposed", "part",
                                             "count"}));
  auto const value = [&](std::size_t i) { return checkpoint.model[i].second; };
  EXPECT_TRUE(at::equal(value(2), at::full({}, 0.5)));
  EXPECT_TRUE(at::equal(value(3), at::arange(4, at::kHalf)));
  EXPECT_TRUE(at::equal(value(4), at::arange(3, at::kBFloat16)));
  EXPECT_TRUE(at::equal(value(5), at::arange(6, at::kFloat).view({2, 3}).t()));
  EXPECT_TRUE(at::equal(value(6), at::arange(4, 6, at::kFloat)));
  EXPECT_TRUE(at::equal(value(7), at::full({}, 7, at::kLong)));
  ASSERT_TRUE(checkpoint.optimizer.has_value());
  EXPECT_EQ(checkpoint.optimizer->state.at(0).step, 2);
  EXPECT_EQ(checkpoint.optimizer->state.at(0).exp_avg.sizes(), value(0).sizes());
  EXPECT_EQ(checkpoint.optimizer->groups[0].initial_lr, 0.5);
  EXPECT_EQ(checkpoint.scheduler_steps, 3);
  EXPECT_EQ(checkpoint.forward_passes, 6);
  EXPECT_EQ(checkpoint.updates, 2);
}

}  // namespace
}  // namespace duoflow::model::test
