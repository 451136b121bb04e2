#include "launch/checkpoint_weights.h"

#include <algorithm>
#include <map>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/error.h"
#include "launch/config_validation.h"

namespace duoflow::launch {
namespace {

// From the manifest alone: the state files, twice the model's bytes, are read only when there is an average in them.
bool has_average(std::string const& folder) {
  auto const manifest = dist::read_checkpoint_manifest(folder);
  auto const& tensors = manifest.at("tensors");
  return std::any_of(tensors.begin(), tensors.end(), [](nlohmann::json const& tensor) {
    return tensor.at("part") == "state" && tensor.at("name").get<std::string>().starts_with(kAveragePrefix);
  });
}

}  // namespace

std::vector<std::string> const& weights_choice_names() {
  static std::vector<std::string> const names{"auto", "trained", "ema"};
  return names;
}

WeightsChoice weights_choice(std::string const& name, std::string const& option) {
  auto const& names = weights_choice_names();
  require_one_of(option.c_str(), name, names);
  return static_cast<WeightsChoice>(std::find(names.begin(), names.end(), name) - names.begin());
}

bool choose_weights(dist::CheckpointState& state, WeightsChoice choice, std::string const& folder) {
  if (choice == WeightsChoice::trained) return false;
  std::map<std::string, at::Tensor> averages;
  for (auto const& [name, tensor] : state.state)
    if (name.starts_with(kAveragePrefix)) averages.emplace(name.substr(std::string(kAveragePrefix).size()), tensor);
  if (averages.empty() && choice == WeightsChoice::ema)
    throw dist::CheckpointError(
        fmt::format("{}: it holds no average of the weights (trained with training.ema_decay = 0); ask for the trained "
                    "ones",
                    folder));
  for (auto& [name, tensor] : state.model)
    if (auto const found = averages.find(name); found != averages.end()) tensor = found->second;
  return !averages.empty();
}

std::vector<dist::NamedTensor> read_weights(std::string const& folder, WeightsChoice choice, bool* averaged) {
  if (choice == WeightsChoice::trained || (choice == WeightsChoice::automatic && !has_average(folder))) {
    *averaged = false;
    return dist::read_checkpoint_model(folder);
  }
  auto state = dist::read_checkpoint(folder);
  *averaged = choose_weights(state, choice, folder);
  return std::move(state.model);
}

}  // namespace duoflow::launch
