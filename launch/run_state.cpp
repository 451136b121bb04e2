#include "launch/run_state.h"

#include <algorithm>
#include <map>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/error.h"
#include "dist/versions.h"
#include "launch/model_setup.h"

namespace duoflow::launch {
namespace {

// Optimizer moments laid out as the flat buffer, under their parameters' names.
void add_moments(std::vector<dist::NamedTensor>& tensors, dist::FlatBuffer const& buffer, at::Tensor const& exp_avg,
                 at::Tensor const& exp_avg_sq) {
  for (auto const& range : buffer.ranges()) {
    auto const named = [&](at::Tensor const& flat) {
      return flat.narrow(0, range.offset, range.numel).view(range.shape);
    };
    tensors.push_back({"exp_avg." + range.name, named(exp_avg)});
    tensors.push_back({"exp_avg_sq." + range.name, named(exp_avg_sq)});
  }
}

void add_small_state(std::vector<dist::NamedTensor>& tensors, RunTensors const& run) {
  tensors.push_back({"update_count", run.optimizer.update_count()});
  for (auto const& [name, tensor] : run.weighting.state()) tensors.push_back({"weighting." + name, tensor});
}

std::string hardware_of(RunTensors const& run) { return dist::hardware(run.buffer.parameters().is_cuda()); }

std::vector<std::string> config_changes(std::string const& stored, Config const& config) {
  Config before = parse_stored_config(stored, "checkpoint's config", {}), now = config;
  std::vector<std::string> changes;
  auto const keys_before = config_keys(before), keys_now = config_keys(now);
  for (std::size_t i = 0; i < keys_now.size(); ++i)
    if (keys_before[i].get() != keys_now[i].get())
      changes.push_back(fmt::format("{}: {} -> {}", keys_now[i].name, keys_before[i].get(), keys_now[i].get()));
  return changes;
}

}  // namespace

dist::CheckpointState pack_run(RunTensors const& run, Counters const& counters, Config const& config) {
  dist::CheckpointState state;
  state.step = counters.step;
  state.model = model_tensors(run.model);
  add_moments(state.state, run.buffer, run.optimizer.gathered(run.optimizer.exp_avg()),
              run.optimizer.gathered(run.optimizer.exp_avg_sq()));
  add_small_state(state.state, run);
  state.counters_json = nlohmann::json{
      {"step", counters.step},
      {"samples", counters.samples},
      {"skips_in_a_row", counters.skips_in_a_row},
      {"global_batch", counters.global_batch},
      {"data_fingerprint", counters.data_fingerprint},
      {"schedule_ahead", counters.schedule_ahead},
      {"seed", config.training.seed},
      {"objective", config.objective},
      {"producer", producer_of(run.model)},
      {"hardware",
       hardware_of(run)}}.dump();
  state.config_yaml = effective_yaml(config);
  return state;
}

Counters unpack_run(dist::CheckpointState const& state, RunTensors const& run, Config const& config,
                    std::string const& data_fingerprint, std::vector<std::string>* changes) {
  auto const json = nlohmann::json::parse(state.counters_json);
  Counters counters{
      json.at("step"),         json.at("samples"),          json.at("skips_in_a_row"),
      json.at("global_batch"), json.at("data_fingerprint"), json.value("schedule_ahead", std::int64_t{0})};
  bool const imported = json.value("imported", false);
  if (imported) counters.data_fingerprint = data_fingerprint;
  if (counters.data_fingerprint != data_fingerprint)
    throw dist::CheckpointError(
        fmt::format("the checkpoint of step {} was trained on other data (fingerprint {}, this folder's is {}); give "
                    "the same --data, "
                    "or start a new run with training.init_from",
                    counters.step, counters.data_fingerprint, data_fingerprint));
  if (json.at("objective") != config.objective)
    throw dist::CheckpointError(fmt::format(
        "the checkpoint of step {} is of objective {}, the config says {} (another stage); use another --run folder "
        "and training.init_from",
        counters.step, json.at("objective").get<std::string>(), config.objective));
  std::vector<std::string> missing;
  load_tensors(run.model, state.model, "checkpoint", &missing);
  if (!missing.empty())
    throw dist::CheckpointError(fmt::format(
        "the checkpoint of step {} has no {} ({} tensors of the model are missing: it is of another model); "
        "resume with the config it was written with",
        counters.step, missing.front(), missing.size()));
  std::map<std::string, at::Tensor> stored;
  for (auto const& [name, tensor] : state.state) stored.emplace(name, tensor);
  at::NoGradGuard const no_grad;
  auto differences = config_changes(state.config_yaml, config);
  bool const other_weighting = std::any_of(differences.begin(), differences.end(), [](std::string const& line) {
    return line.find(".weighting: ") != std::string::npos || line.find(".statistics: ") != std::string::npos;
  });
  auto const exp_avg = at::zeros_like(run.buffer.parameters()), exp_avg_sq = at::zeros_like(exp_avg);
  std::vector<dist::NamedTensor> wanted;
  add_moments(wanted, run.buffer, exp_avg, exp_avg_sq);
  add_small_state(wanted, run);
  for (auto& [name, tensor] : wanted) {
    auto const found = stored.find(name);
    if (found == stored.end() && name.starts_with("weighting.") && (other_weighting || imported)) continue;  // anew
    if (found == stored.end() || found->second.sizes() != tensor.sizes())
      throw dist::CheckpointError(
          fmt::format("the checkpoint of step {} has no {} of {} numbers (other trainable parts or another model); "
                      "resume with the config it was written with",
                      counters.step, name, tensor.numel()));
    tensor.copy_(found->second);
  }
  run.optimizer.restore(exp_avg, exp_avg_sq);
  auto const before = json.value("hardware", std::string()), now = hardware_of(run);
  if (!before.empty() && before != now)
    differences.push_back(fmt::format("hardware: {} -> {} (sums may differ in their last bits)", before, now));
  if (changes) *changes = std::move(differences);
  return counters;
}

}  // namespace duoflow::launch
