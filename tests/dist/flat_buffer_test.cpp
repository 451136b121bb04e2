#include "dist/flat_buffer.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "dist/error.h"
#include "dist/thread_backend.h"

namespace duoflow::dist {
namespace {

TrainableParameter parameter(std::string const& name, std::vector<std::int64_t> const& shape, double value, int group = 0) {
  return {name, at::full(shape, value).requires_grad_(), group};
}

std::string names_in_order(FlatBuffer const& buffer) {
  std::string names;
  for (auto const& range : buffer.ranges()) {
    names += range.name + " ";
  }
  return names;
}

// A learning rate for each block makes a group of each; embedders and head share one that is complete last.
TEST(FlatBufferTest, GroupsOfMatricesLieInTheOrderInWhichTheBackwardCompletesThem) {
  FlatBuffer const buffer({parameter("embedder", {9, 9}, 1, 0), parameter("norm", {900}, 1, 1), parameter("block_0", {4, 4}, 1, 2),
                           parameter("block_1", {4, 4}, 1, 3), parameter("head", {9, 9}, 1, 0)});
  EXPECT_EQ(names_in_order(buffer), "block_1 block_0 head embedder norm ");
}

TEST(FlatBufferTest, ParametersBecomeRangesInReverseForwardOrderByGroup) {
  auto const first = parameter("first", {3, 5}, 1), norm = parameter("norm", {5}, 2, 1), last = parameter("last", {17}, 3);
  FlatBuffer const buffer({first, norm, last});
  EXPECT_EQ(names_in_order(buffer), "last first norm ");
  ASSERT_EQ(buffer.group_runs().size(), 2U);
  EXPECT_EQ(buffer.group_runs()[0].end, 32 + 16);
  EXPECT_EQ(buffer.group_runs()[1].begin, 48);
  EXPECT_EQ(buffer.group_runs()[1].end, 64);
  EXPECT_EQ(buffer.size(), 64);
  for (std::size_t i = 0; i < buffer.ranges().size(); ++i) {
    FlatRange const& range = buffer.ranges()[i];
    EXPECT_EQ(range.offset % 16, 0);
    EXPECT_EQ(buffer.tensors()[i].data_ptr<float>(), buffer.parameters().data_ptr<float>() + range.offset);
    EXPECT_EQ(buffer.tensors()[i].grad().data_ptr<float>(), buffer.gradients().data_ptr<float>() + range.offset);
    EXPECT_EQ(buffer.tensors()[i].sizes().vec(), range.shape);
  }
  EXPECT_EQ(first.tensor.data_ptr<float>(), buffer.parameters().data_ptr<float>() + 32);
  EXPECT_TRUE(at::equal(first.tensor, at::ones({3, 5})));
  EXPECT_EQ(buffer.parameters().sum().item<float>(), 15 + 10 + 51);  // the padding is zero
}

TEST(FlatBufferTest, BackwardAddsIntoTheBufferAndKeepsTheView) {
  auto const weight = parameter("weight", {4, 3}, 0.5), bias = parameter("bias", {4}, 0);
  FlatBuffer const buffer({weight, bias});
  for (int micro_step = 1; micro_step <= 3; ++micro_step) {
    at::Tensor const loss = at::linear(at::ones({2, 3}), weight.tensor, bias.tensor).sum();
    torch::autograd::backward({loss}, {});
    EXPECT_EQ(weight.tensor.grad().data_ptr<float>(), buffer.gradients().data_ptr<float>() + buffer.ranges()[1].offset);
    EXPECT_TRUE(at::equal(weight.tensor.grad(), at::full({4, 3}, 2.0 * micro_step)));
    EXPECT_TRUE(at::equal(bias.tensor.grad(), at::full({4}, 2.0 * micro_step)));
  }
  EXPECT_EQ(buffer.gradients().sum().item<float>(), 3 * (2 * 12 + 2 * 4));
}

TEST(FlatBufferTest, WritingTheBufferChangesTheParameter) {
  auto const weight = parameter("weight", {2, 2}, 1);
  FlatBuffer const buffer({weight});
  buffer.parameters().mul_(3);
  EXPECT_TRUE(at::equal(weight.tensor, at::full({2, 2}, 3.0)));
}

TEST(FlatBufferTest, EmptyAndScalarParametersHaveRanges) {
  FlatBuffer const nothing({});
  EXPECT_EQ(nothing.size(), 0);
  FlatBuffer const buffer({parameter("scalar", {}, 7), parameter("empty", {0}, 1)});
  EXPECT_EQ(buffer.size(), 16);
  EXPECT_EQ(buffer.tensors()[1].item<float>(), 7);
}

TEST(FlatBufferTest, WhatCannotBeTrainedIsRefusedByName) {
  auto const good = parameter("good", {2}, 1);
  EXPECT_THROW(FlatBuffer({good, good}), std::invalid_argument);
  EXPECT_THROW(FlatBuffer({{"one", good.tensor, 0}, {"two", good.tensor, 0}}), std::invalid_argument);
  EXPECT_THROW(FlatBuffer({{"frozen", at::zeros({2}), 0}}), std::invalid_argument);
  EXPECT_THROW(FlatBuffer({{"half", at::zeros({2}, at::kBFloat16).requires_grad_(), 0}}), std::invalid_argument);
}

TEST(AgreeOnParametersTest, ValuesOfRankZeroBecomeEveryones) {
  run_ranks(3, [](Communicator const& group) {
    FlatBuffer buffer({parameter("a", {3}, group.rank() + 1.0), parameter("b", {2, 2}, group.rank() + 10.0)});
    agree_on_parameters(group, buffer);
    EXPECT_TRUE(at::equal(buffer.tensors()[1], at::full({3}, 1.0)));
    EXPECT_TRUE(at::equal(buffer.tensors()[0], at::full({2, 2}, 10.0)));
  });
}

// What every rank of three says when rank 2 has other parameters than the rest.
std::string disagreement(std::vector<TrainableParameter> const& usual, std::vector<TrainableParameter> const& of_rank_2) {
  std::vector<std::string> messages(3);
  run_ranks(3, [&](Communicator const& group) {
    auto copies = group.rank() == 2 ? of_rank_2 : usual;
    for (auto& copy : copies) {
      copy.tensor = copy.tensor.detach().clone().requires_grad_();
    }
    FlatBuffer buffer(copies);
    try {
      agree_on_parameters(group, buffer);
    } catch (PeerError const& error) {
      messages[static_cast<std::size_t>(group.rank())] = error.what();
    }
  });
  EXPECT_EQ(messages[0], messages[1]);
  EXPECT_EQ(messages[0], messages[2]);
  return messages[0];
}

TEST(AgreeOnParametersTest, TheFirstDifferenceIsNamedOnEveryRank) {
  auto const a = parameter("a", {3}, 1), b = parameter("b", {4}, 1), wide = parameter("b", {2, 2}, 1);
  auto const other_group = parameter("b", {4}, 1, 1);
  EXPECT_NE(disagreement({a, b}, {a, wide}).find("parameter 0 of the flat buffer is \"b [4] Float group 0\" on rank 0 and "
                                                 "\"b [2, 2] Float group 0\" on rank 2"), std::string::npos);
  EXPECT_NE(disagreement({a, b}, {b, a}).find("\"b [4] Float group 0\" on rank 0 and \"a [3]"), std::string::npos);
  EXPECT_NE(disagreement({a, b}, {b}).find("parameter 1 of the flat buffer is \"a [3] Float group 0\" on rank 0 and "
                                           "\"nothing\" on rank 2"), std::string::npos);
  EXPECT_NE(disagreement({a, b}, {a, other_group}).find("group 1"), std::string::npos);
}

}  // namespace
}  // namespace duoflow::dist
