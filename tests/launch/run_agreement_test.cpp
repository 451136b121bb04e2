#include "launch/run_agreement.h"

#include <filesystem>
#include <map>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/error.h"
#include "dist/error.h"
#include "dist/thread_backend.h"
#include "tests/launch/scratch_folder.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::launch {
namespace {

constexpr int kRanks = 3;

RunIdentity identity(int rank, std::string const& run) {
  return {rank == 2 ? "b" : "a", "1.0 (build x)", "cpu", run, {{"training.lr", "0.001"}, {"training.seed", "7"}}};
}

// The message that every rank gets; "" if none. Another type of exception, or another message on one rank, is a
// failure.
template <class Error>
std::string message(std::function<void(dist::Communicator const&)> const& agree) {
  std::vector<std::string> messages(kRanks);
  dist::run_ranks(kRanks, [&](dist::Communicator const& group) {
    try {
      agree(group);
    } catch (Error const& error) {
      messages[static_cast<std::size_t>(group.rank())] = error.what();
    }
    dist::barrier(group);
  });
  EXPECT_EQ(messages, std::vector<std::string>(kRanks, messages.front()));
  return messages.front();
}

template <class Error>
std::string message_if_rank_2(std::string const& run, std::function<void(RunIdentity&)> const& differs) {
  return message<Error>([&](dist::Communicator const& group) {
    auto mine = identity(group.rank(), run);
    if (group.rank() == 2) differs(mine);
    agree_on_run(group, mine, 0.3);
  });
}

TEST(RunAgreementTest, EqualRanksAgreeAndLeaveNothingBehind) {
  ScratchFolder const folder;
  auto const run = (folder.path() / "new" / "run").string();
  EXPECT_EQ(message_if_rank_2<std::exception>(run, [](RunIdentity&) {}), "");
  EXPECT_TRUE(std::filesystem::is_empty(run));
  EXPECT_EQ(message_if_rank_2<std::exception>(run, [&](RunIdentity& mine) { mine.run = run + "/../run/."; }), "");
}

TEST(RunAgreementTest, TheFirstKeyThatDiffersIsNamedWithBothValues) {
  ScratchFolder const folder;
  EXPECT_EQ(
      message_if_rank_2<ConfigError>(folder.path(), [](RunIdentity& mine) { mine.config[1].second = "8"; }),
      "the configurations of the ranks differ: training.seed is 7 on rank 0 on host a, 8 on rank 2 on host b; start "
      "all ranks with the same --config and overrides");
}

TEST(RunAgreementTest, AnotherBuildIsAPeerError) {
  ScratchFolder const folder;
  EXPECT_EQ(
      message_if_rank_2<dist::PeerError>(folder.path(), [](RunIdentity& mine) { mine.version = "1.0 (build y)"; }),
      "the ranks run different programs: duoflow 1.0 (build x) on rank 0 on host a, 1.0 (build y) on rank 2 on host b; "
      "install the same build on all hosts");
}

TEST(RunAgreementTest, AnotherDeviceIsAConfigError) {
  ScratchFolder const folder;
  EXPECT_NE(message_if_rank_2<ConfigError>(folder.path(), [](RunIdentity& mine) { mine.device = "cuda"; }), "");
}

TEST(RunAgreementTest, AnotherProcessorIsAConfigErrorOnlyWhereBitsArePromised) {
  ScratchFolder const folder;
  auto const run = folder.path().string();
  auto const with = [&](bool reproducible) {
    return message<ConfigError>([&](dist::Communicator const& group) {
      auto mine = identity(group.rank(), run);
      mine.reproducible = reproducible;
      mine.processor = group.rank() == 2 ? "X (AVX2)" : "X (AVX512)";
      agree_on_run(group, mine, 0.3);
    });
  };
  EXPECT_EQ(with(false), "");
  auto const found = with(true);
  EXPECT_NE(found.find("X (AVX512)"), std::string::npos) << found;
  EXPECT_NE(found.find("X (AVX2) on rank 2"), std::string::npos) << found;
}

TEST(RunAgreementTest, ARunFolderThatARankDoesNotSeeNamesItsHost) {
  ScratchFolder const folder;
  auto const run = (folder.path() / "run").string(), other = (folder.path() / "other").string();
  auto const text = message_if_rank_2<ConfigError>(run, [&](RunIdentity& mine) { mine.run = other; });
  EXPECT_NE(text.find("what rank 0 on host a wrote into " + run + " is not seen by rank 2 on host b in " + other),
            std::string::npos)
      << text;
  EXPECT_TRUE(std::filesystem::is_empty(run));
  EXPECT_FALSE(std::filesystem::exists(other));
}

TEST(RunAgreementTest, OtherDataIsADataErrorButAnotherPathIsNot) {
  auto const agree = [](std::string const& fingerprint) {
    return message<data::DataError>([&](dist::Communicator const& group) {
      auto const rank = group.rank();
      agree_on_data(group, rank == 2 ? "b" : "a", "/data" + std::to_string(rank), rank == 2 ? fingerprint : "f00");
    });
  };
  EXPECT_EQ(agree("f00"), "");
  EXPECT_EQ(agree("f01"),
            "the ranks train on different data: /data0 (fingerprint f00) on rank 0 on host a, /data2 "
            "(fingerprint f01) on rank 2 on host b; give all ranks the same --data");
}

// The message when one tensor of rank 2's model differs in its last element.
std::string message_if_rank_2_has_another(std::string const& name) {
  return message<ConfigError>([&](dist::Communicator const& group) {
    auto const model = tiny_model(/*train_renderer=*/false);
    at::NoGradGuard const no_grad;
    for (auto const& parameter : model.parameters())
      if (group.rank() == 2 && parameter.name == name) parameter.tensor.view({-1})[-1].add_(1e-3);
    agree_on_weights(group, group.rank() == 2 ? "b" : "a", model);
  });
}

TEST(RunAgreementTest, OtherWeightsAreAConfigErrorThatNamesTheTensorWhetherItTrainsOrNot) {
  EXPECT_EQ(message_if_rank_2_has_another(""), "");
  auto const model = tiny_model(/*train_renderer=*/false);
  std::map<std::string, std::string> examples;  // the last of each kind
  for (auto const& parameter : model.parameters())
    examples[parameter.trainable ? std::to_string(static_cast<int>(parameter.part)) : "buffer"] = parameter.name;
  EXPECT_EQ(examples.size(), 4U);  // reconstructor, renderer (frozen here), editor, buffers
  for (auto const& [kind, name] : examples) {
    auto const text = message_if_rank_2_has_another(name);
    EXPECT_NE(text.find("start from different weights: the hash of " + name + " is "), std::string::npos) << text;
    EXPECT_NE(text.find(" on rank 0 on host a, "), std::string::npos) << text;
    EXPECT_NE(text.find(" on rank 2 on host b; give all ranks the same training.init_from"), std::string::npos) << text;
  }
}

TEST(RunAgreementTest, OtherLossNetworksAreAConfigError) {
  auto const agree = [](std::string const& fingerprint) {
    return message<ConfigError>([&](dist::Communicator const& group) {
      agree_on_loss_networks(group, group.rank() == 2 ? "b" : "a", group.rank() == 2 ? fingerprint : "f00");
    });
  };
  EXPECT_EQ(agree("f00"), "");
  EXPECT_EQ(
      agree("f01"),
      "the ranks have different networks for LPIPS or the perceptual loss: their hash is f00 on rank 0 on host a, "
      "f01 on rank 2 on host b; give all ranks the same files");
}

TEST(RunAgreementTest, OneRankHasNothingToCompare) {
  agree_on_run(dist::Communicator(), identity(0, "/nowhere/run"), 0.1);
  agree_on_data(dist::Communicator(), "a", "/nowhere", "f00");
  agree_on_loss_networks(dist::Communicator(), "a", "f00");
}

}  // namespace
}  // namespace duoflow::launch
