#include "launch/loss_weights.h"

#include <cstdlib>
#include <filesystem>
#include <optional>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/checkpoint/safetensors.h"
#include "dist/error.h"
#include "tests/launch/scratch_folder.h"
#include "tests/model/loss_networks.h"

namespace duoflow::launch {
namespace {

// $DUOFLOW_WEIGHTS for one test.
class WeightsFolder {
 public:
  explicit WeightsFolder(std::string const& path) {
    if (auto const* before = std::getenv("DUOFLOW_WEIGHTS")) before_ = before;
    setenv("DUOFLOW_WEIGHTS", path.c_str(), 1);
  }
  ~WeightsFolder() { before_ ? setenv("DUOFLOW_WEIGHTS", before_->c_str(), 1) : unsetenv("DUOFLOW_WEIGHTS"); }

 private:
  std::optional<std::string> before_;
};

void write(std::filesystem::path const& path, model::NamedTensors const& weights) {
  std::vector<dist::NamedTensor> tensors;
  for (auto const& [name, tensor] : weights) tensors.push_back({name, tensor.to(at::kFloat)});
  dist::write_safetensors(path.string(), tensors);
}

template <class Error>
void expect_error(std::function<void()> const& action, std::vector<std::string> const& phrases) {
  try {
    action();
    ADD_FAILURE() << "no error with " << phrases.front();
  } catch (Error const& error) {
    for (auto const& phrase : phrases)
      EXPECT_NE(std::string(error.what()).find(phrase), std::string::npos) << error.what();
  }
}

Config with(std::vector<std::string> const& overrides) { return parse_config("", "F.yaml", overrides); }

TEST(LossNetworksTest, WhatNoLossAsksForNeedsNoFile) {
  ScratchFolder const scratch;
  WeightsFolder const folder(scratch.path().string());
  auto const loaded = load_networks(with({}), at::kCPU);
  EXPECT_EQ(loaded.networks.lpips, nullptr);
  EXPECT_EQ(loaded.networks.vgg, nullptr);
  EXPECT_EQ(loaded.fingerprint, "");
}

TEST(LossNetworksTest, AnAbsentFileNamesTheCommandThatGetsIt) {
  ScratchFolder const scratch;
  WeightsFolder const folder(scratch.path().string());
  expect_error<ConfigError>(
      [] { load_networks(with({"training.lpips_loss_weight=1"}), at::kCPU); },
      {"training.lpips_loss_weight = 1", "lpips_vgg16.safetensors", "launch/setup.sh --perceptual"});
  expect_error<ConfigError>(
      [] {
        load_networks(with({"training.lpips_loss_weight=1", "training.lpips_weights=/nowhere.safetensors"}), at::kCPU);
      },
      {"/nowhere.safetensors is not a file"});
  expect_error<ConfigError>([] { load_networks(with({"training.perceptual_loss_weight=1"}), at::kCPU); },
                            {"training.perceptual_weights", "launch/loss_weights.py vgg19"});
  std::string absent;
  EXPECT_EQ(find_lpips(model::LpipsNetwork::alex, "", at::kCPU, &absent), nullptr);
  EXPECT_NE(absent.find("lpips_alex.safetensors"), std::string::npos) << absent;
}

TEST(LossNetworksTest, AFileOfAnotherNetworkOrADamagedOneIsAnErrorOfTheFile) {
  ScratchFolder const scratch;
  auto const path = (scratch.path() / "w.safetensors").string();
  auto const load = [&] {
    load_networks(with({"training.perceptual_loss_weight=1", "training.perceptual_weights=" + path}), at::kCPU);
  };
  write(path, {{"n_light_field_latent", at::zeros({2, 3})}});
  expect_error<dist::CheckpointError>(load,
                                      {path, "VGG19", "'features.0.weight'", "nearest is 'n_light_field_latent'"});
  write(path, model::test::formula_weights(model::test::tiny_plan(), false));
  expect_error<dist::CheckpointError>(load, {path, "'features.0.weight' has shape [4,3,3,3]", "[64,3,3,3]"});
  std::ofstream(path) << "not a network";
  expect_error<dist::CheckpointError>(load, {path});
  auto const torch_file = (scratch.path() / "vgg19.pth").string();
  std::ofstream(torch_file) << "x";
  expect_error<ConfigError>(
      [&] {
        load_networks(with({"training.perceptual_loss_weight=1", "training.perceptual_weights=" + torch_file}),
                      at::kCPU);
      },
      {"not a safetensors file", "launch/loss_weights.py"});
}

TEST(LossNetworksTest, AlexNetIsReadFromTheWeightsFolderOrTheKey) {
  ScratchFolder const scratch;
  WeightsFolder const folder(scratch.path().string());
  auto weights = model::test::formula_weights(model::alexnet_plan(), true);
  write(scratch.path() / "lpips_alex.safetensors", weights);
  auto const config = with({"training.lpips_loss_weight=1", "training.lpips_network=alex"});
  auto const loaded = load_networks(config, at::kCPU);
  ASSERT_NE(loaded.networks.lpips, nullptr);
  EXPECT_EQ(loaded.fingerprint.substr(0, 6), "lpips ");
  EXPECT_EQ(loaded.fingerprint.size(), 6u + 16u);
  at::Tensor const image = model::test::formula_images({1, 3, 32, 32}, 0).to(at::kFloat);
  EXPECT_GT(loaded.networks.lpips->distance(image, 1 - image).item<double>(), 0);
  EXPECT_FALSE(loaded.networks.lpips->distance(image.clone().requires_grad_(true), image).grad_fn() == nullptr);
  weights.back().second[0][0][0][0] += 0.01;
  auto const other = (scratch.path() / "other.safetensors").string();
  write(other, weights);
  auto const named = load_networks(
      with({"training.lpips_loss_weight=1", "training.lpips_network=alex", "training.lpips_weights=" + other}),
      at::kCPU);
  EXPECT_NE(named.fingerprint, loaded.fingerprint);
}

// Of lpips 0.1.4 with torch 2.11 and the same trunks: tests/golden/make_lpips_values.py.
TEST(DownloadedNetworksTest, GiveTheValuesOfTheLpipsPackage) {
  std::string no_vgg, no_alex;
  auto const vgg = find_lpips(model::LpipsNetwork::vgg, "", at::kCPU, &no_vgg),
             alex = find_lpips(model::LpipsNetwork::alex, "", at::kCPU, &no_alex);
  if (!vgg || !alex) GTEST_SKIP() << (vgg ? no_alex : no_vgg);
  at::Tensor const image = model::test::formula_images({1, 3, 64, 72}, 0).to(at::kFloat),
                   target = model::test::formula_images({1, 3, 64, 72}, 1).to(at::kFloat);
  EXPECT_NEAR(vgg->distance(image, target).item<double>(), 0.16027117, 1e-5);
  EXPECT_NEAR(alex->distance(image, target).item<double>(), 0.10402327, 1e-5);
}

}  // namespace
}  // namespace duoflow::launch
