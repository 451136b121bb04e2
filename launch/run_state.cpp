#include "launch/run_state.h"

#include <algorithm>
#include <map>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/error.h"
#include "dist/versions.h"
#include "launch/checkpoint_weights.h"
#include "launch/model_setup.h"

namespace duoflow::launch {
namespace {

// What the optimizer keeps of every parameter, each of what this rank owns: the moments, and the average if there is
// one.
struct Kept {
  std::string prefix;
  at::Tensor own;
};
std::vector<Kept> kept_by(dist::ShardedAdamW const& optimizer) {
  std::vector<Kept> kept{{"exp_avg.", optimizer.exp_avg()}, {"exp_avg_sq.", optimizer.exp_avg_sq()}};
  if (optimizer.average().defined()) kept.push_back({kAveragePrefix, optimizer.average()});
  return kept;
}

// Under the parameters' names, for each parameter in the order of kept_by, laid out as the flat buffer; sharded: shapes
// alone.
void add_kept(std::vector<dist::NamedTensor>& tensors, RunTensors const& run, bool sharded) {
  auto const shapes = at::empty({run.buffer.size()}, at::TensorOptions(at::kFloat).device(at::kMeta));
  for (auto const& range : run.buffer.ranges())
    for (auto const& [prefix, own] : kept_by(run.optimizer)) {
      auto const& flat = sharded ? shapes : own;
      tensors.push_back({prefix + range.name, flat.narrow(0, range.offset, range.numel).view(range.shape)});
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

// Values of the parameters [p, end_p), gathered: of as many as fit into what is left of `memory`, which gets shorter, there;
// of the others (as a rule one) in memory of their own. Collective.
std::vector<at::Tensor> gathered(RunTensors const& run, at::Tensor const& own, std::size_t p, std::size_t end_p, at::Tensor& memory) {
  auto const& ranges = run.buffer.ranges();
  auto const end_of = [&](std::size_t i) { return ranges[i].offset + ranges[i].numel; };
  auto const begin = p < end_p ? ranges[p].offset : 0;
  auto fit = p;
  std::int64_t room = 0;
  for (; fit < end_p && end_of(fit) - begin <= memory.numel(); ++fit) room = end_of(fit) - begin;
  auto const values = memory.narrow(0, 0, room);
  memory = memory.narrow(0, room, memory.numel() - room);
  auto const rest = at::empty({fit < end_p ? end_of(end_p - 1) - begin - room : 0});
  run.optimizer.gather(own, begin, {values, rest});
  std::vector<at::Tensor> tensors;
  for (auto i = p; i < end_p; ++i) {
    auto const& piece = i < fit ? values : rest;
    tensors.push_back(piece.narrow(0, ranges[i].offset - begin - (i < fit ? 0 : room), ranges[i].numel).view(ranges[i].shape));
  }
  return tensors;
}

// ZeRO-1: of what the optimizer keeps, which comes first in `state`, a rank gathers what it writes; the rest stays
// shapes. The memory is the gradient buffer's, in which nothing lies between two updates.
void gather_written(std::vector<dist::NamedTensor>& state, RunTensors const& run) {
  auto const& group = run.optimizer.shared_over();
  std::vector<std::uint64_t> bytes;
  for (auto const& [name, tensor] : state) bytes.push_back(static_cast<std::uint64_t>(tensor.nbytes()));
  auto const [first, last] = dist::state_share(bytes, group.rank(), group.size());
  auto memory = run.buffer.gradients();
  auto const kept = kept_by(run.optimizer);
  auto const kinds = kept.size();
  for (std::size_t kind = 0; kind < kinds; ++kind) {  // tensor kinds p + kind of the state is parameter p's
    auto const p = (first + kinds - 1 - kind) / kinds,
               end_p = std::min((last + kinds - 1 - kind) / kinds, run.buffer.ranges().size());
    auto const tensors = gathered(run, kept[kind].own, p, std::max(p, end_p), memory);
    for (std::size_t i = 0; i < tensors.size(); ++i) state[kinds * (p + i) + kind].tensor = tensors[i];
  }
}

}  // namespace

dist::CheckpointState pack_run(RunTensors const& run, Counters const& counters, Config const& config) {
  dist::CheckpointState state;
  state.step = counters.step;
  state.model = model_tensors(run.model);
  bool const sharded = run.optimizer.shared_over().size() > 1;
  add_kept(state.state, run, sharded);
  add_small_state(state.state, run);
  if (sharded) gather_written(state.state, run);
  state.counters_json = nlohmann::json{
      {"step", counters.step},
      {"samples", counters.samples},
      {"skips_in_a_row", counters.skips_in_a_row},
      {"global_batch", counters.global_batch},
      {"data_fingerprint", counters.data_fingerprint},
      {"schedule_ahead", counters.schedule_ahead},
      {"loss_networks", counters.loss_networks},
      {"first_latent_std", counters.first_latent_std},
      {"forward_passes", counters.forward_passes},
      {"seed", config.training.seed},
      {"objective", config.objective},
      {"producer", producer_of(run.model)},
      {"hardware",
       hardware_of(run)}}.dump();
  state.config_yaml = effective_yaml(config);
  return state;
}

namespace {

using Stored = std::map<std::string, at::Tensor>;

// What belongs to this run and no other: the data and the objective.
// A cast would make some number of -1 or 1e300. 2^53: logs have them as doubles.
std::int64_t count_of(nlohmann::json const& json, char const* name) {
  auto const& value = json.at(name);
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() > std::uint64_t{1} << 53)
    throw dist::CheckpointError(fmt::format(
        "the checkpoint's counter {} is {} (a whole number from 0 on belongs there); resume from another one", name,
        value.dump()));
  return value.get<std::int64_t>();
}

void require_same_run(nlohmann::json const& json, Counters const& counters, std::string const& objective,
                      std::string const& data_fingerprint) {
  if (counters.data_fingerprint != data_fingerprint)
    throw dist::CheckpointError(
        fmt::format("the checkpoint of step {} was trained on other data (fingerprint {}, this folder's is {}); give "
                    "the same --data, "
                    "or start a new run with training.init_from",
                    counters.step, counters.data_fingerprint, data_fingerprint));
  if (json.at("objective") != objective)
    throw dist::CheckpointError(fmt::format(
        "the checkpoint of step {} is of objective {}, the config says {} (another stage); use another --run folder "
        "and training.init_from",
        counters.step, json.at("objective").get<std::string>(), objective));
}

void restore_model(dist::CheckpointState const& state, RunTensors const& run) {
  std::vector<std::string> missing;
  load_tensors(run.model, state.model, "checkpoint", &missing);
  run.optimizer.parameters_replaced();
  if (!missing.empty())
    throw dist::CheckpointError(fmt::format(
        "the checkpoint of step {} has no {} ({} tensors of the model are missing: it is of another model); "
        "resume with the config it was written with",
        state.step, missing.front(), missing.size()));
}

at::Tensor stored_value(Stored const& stored, std::int64_t step, std::string const& name, at::IntArrayRef shape) {
  auto const found = stored.find(name);
  if (found == stored.end() || found->second.sizes() != shape)
    throw dist::CheckpointError(
        fmt::format("the checkpoint of step {} has no {} of {} numbers (other trainable parts or another model); "
                    "resume with the config it was written with",
                    step, name, c10::multiply_integers(shape)));
  return found->second;
}

// Averages of weights begin at the weights when the checkpoint has none, and end when the run keeps none.
void restore_optimizer(Stored const& stored, std::int64_t step, RunTensors const& run,
                       std::vector<std::string>& differences) {
  auto const averages = std::count_if(stored.begin(), stored.end(),
                                      [](auto const& named) { return named.first.starts_with(kAveragePrefix); });
  bool const keeps = run.optimizer.average().defined();
  if (averages == 0 && keeps) {
    run.optimizer.start_average();
    differences.push_back("the checkpoint has no average of the weights: it starts at the weights themselves");
  }
  auto const taken = keeps ? std::min<std::int64_t>(averages, std::ssize(run.buffer.ranges())) : 0;
  if (taken < averages)
    differences.push_back(fmt::format("{} averages of weights are dropped (this run does not train or average those "
                                      "weights): later checkpoints have only the weights there",
                                      averages - taken));
  for (auto const& [prefix, own] : kept_by(run.optimizer)) {
    if (prefix == kAveragePrefix && averages == 0) continue;
    for (auto const& range : run.buffer.ranges())
      run.optimizer.restore(own, range.offset, stored_value(stored, step, prefix + range.name, range.shape));
  }
}

// A changed weighting starts anew where its state is not the stored one's.
void restore_small_state(Stored const& stored, std::int64_t step, RunTensors const& run,
                         std::vector<std::string> const& differences, bool imported) {
  auto const changed = [&](std::string const& key) {
    return std::any_of(differences.begin(), differences.end(),
                       [&](std::string const& line) { return line.find(key) != std::string::npos; });
  };
  bool const other_strategy = changed(".weighting: ");
  bool const may_lack = other_strategy || changed(".statistics: ") || changed(".gradient_space: ") || imported;
  std::vector<dist::NamedTensor> small;
  add_small_state(small, run);
  for (auto& [name, tensor] : small) {
    // Lagged strategies share names; another strategy's numbers are not this one's.
    bool const starts_anew =
        name.starts_with("weighting.") && (other_strategy || (may_lack && stored.count(name) == 0));
    if (!starts_anew) tensor.copy_(stored_value(stored, step, name, tensor.sizes()));
  }
}

}  // namespace

Counters unpack_run(dist::CheckpointState const& state, RunTensors const& run, Config const& config,
                    std::string const& data_fingerprint, std::vector<std::string>* changes) try {
  auto const json = nlohmann::json::parse(state.counters_json);
  Counters counters{count_of(json, "step"),
                    count_of(json, "samples"),
                    count_of(json, "skips_in_a_row"),
                    count_of(json, "global_batch"),
                    json.at("data_fingerprint"),
                    json.value("schedule_ahead", std::int64_t{0}),
                    json.value("first_latent_std", 0.0),
                    json.value("loss_networks", std::string()),
                    json.value("forward_passes", std::int64_t{0})};
  bool const imported = json.value("imported", false);
  if (imported) counters.data_fingerprint = data_fingerprint;
  require_same_run(json, counters, config.objective, data_fingerprint);
  restore_model(state, run);
  Stored stored;
  for (auto const& [name, tensor] : state.state) stored.emplace(name, tensor);
  at::NoGradGuard const no_grad;
  auto differences = config_changes(state.config_yaml, config);
  restore_small_state(stored, counters.step, run, differences, imported);
  restore_optimizer(stored, counters.step, run, differences);
  auto const before = json.value("hardware", std::string()), now = hardware_of(run);
  if (!before.empty() && before != now)
    differences.push_back(fmt::format("hardware: {} -> {} (sums may differ in their last bits)", before, now));
  if (changes) *changes = std::move(differences);
  return counters;
} catch (nlohmann::json::exception const& error) {
  throw dist::CheckpointError(
      fmt::format("the checkpoint of step {} has counters of another form ({}); resume from another one", state.step,
                  error.what()));
}

std::vector<std::string> changes_beside_config(Counters const& stored, std::int64_t global_batch,
                                               std::string const& loss_networks) {
  std::vector<std::string> changes;
  if (stored.global_batch != global_batch)
    changes.push_back(fmt::format("global batch: {} -> {}", stored.global_batch, global_batch));
  // Without networks on one side the config has changed, and says so itself.
  bool const both = !stored.loss_networks.empty() && !loss_networks.empty();
  if (both && stored.loss_networks != loss_networks)
    changes.push_back(fmt::format("weights of the render loss's networks: {} -> {} (the loss is another function)",
                                  stored.loss_networks, loss_networks));
  return changes;
}

}  // namespace duoflow::launch
