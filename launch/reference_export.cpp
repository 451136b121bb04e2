#include "launch/reference_export.h"

#include <algorithm>
#include <iterator>
#include <map>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "dist/error.h"
#include "launch/logging.h"
#include "launch/reference_layout.h"
#include "launch/schedule.h"

namespace duoflow::launch {
namespace {

// What no class of the family computes.
void refuse_departures(Config const& config, std::string const& origin) {
  std::vector<std::string> keys;
  std::string const e = "model.transformer.editor.";
  auto const& m = config.model;
  if (config.objective == "joint" && model::knows_time(m.editor)) {
    if (m.velocity_head) keys.push_back(e + "velocity_head: true");
    if (m.light_in_adaln) keys.push_back(e + "light_in_adaln: true");
    if (m.time_scale != 1) keys.push_back(fmt::format("{}time_scale: {}", e, m.time_scale));
  }
  if (config.objective == "joint" && m.normalize_latents) keys.push_back(e + "normalize_latents: true");
  double const scale = m.editor == model::EditorKind::noise_to_relit ? 0.136 : 1;
  if (config.objective == "joint" && m.latent_scale != scale)
    keys.push_back(fmt::format("{}latent_scale: {}", e, m.latent_scale));
  if (config.objective == "joint" && m.editor == model::EditorKind::residual && m.residual_scale != 0.05)
    keys.push_back(fmt::format("{}residual_scale: {}", e, m.residual_scale));
  if (config.objective == "joint" && config.data.light_encoding != "lvsm") keys.push_back("data.light_encoding: " + config.data.light_encoding);
  if (!keys.empty())
    throw dist::CheckpointError(fmt::format(
        "{}: its model departs from the LVSM family's classes, which could not load it or would compute something else "
        "({}); train with model.class_name set, or export safetensors",
        origin, fmt::join(keys, ", ")));
}

// What its data path gives such a model otherwise than it was trained with: weights alone do not say so.
void warn_of_other_inputs(Config const& config, std::string const& origin) {
  std::vector<std::string> keys;
  bool const lit = config.objective == "joint";
  if (lit && config.env_image_size != 256)
    keys.push_back(fmt::format("model.env_tokenizer.image_size: {} (it brings every light map to 256 x 512)", config.env_image_size));
  if (config.data.camera_frame != "all")
    keys.push_back(fmt::format("data.camera_frame: {} (its cameras are normalised over all views)", config.data.camera_frame));
  if (!keys.empty())
    log_warning(fmt::format("{}: the LVSM family's data path gives this model other inputs than it was trained with: {}; feed it "
                            "accordingly",
                            origin, fmt::join(keys, ", ")));
}

// The family's optimizer numbers all parameters or the editor's, in two groups of one learning rate.
void refuse_rules(Config const& config, std::string const& origin) {
  auto const& t = config.training;
  char const* const rule = !t.freeze.empty()       ? "training.freeze"
                           : !t.lr_scale.empty()   ? "training.lr_scale"
                           : t.layer_lr_decay != 1 ? "training.layer_lr_decay"
                                                   : nullptr;
  if (rule != nullptr)
    throw dist::CheckpointError(fmt::format(
        "{}: trained with {}, which the LVSM family's optimizer has no place for; export safetensors", origin, rule));
}

bool is_own(std::string const& name) {
  for (auto const* prefix : {"editor_velocity_head.", "light_embedder.", "latent_mean", "latent_std"})
    if (name.starts_with(prefix)) return true;
  return false;
}

// Images2LatentScene has no editor: a reconstruction's would be unknown keys.
bool belongs(std::string const& name, Config const& config) {
  if (is_own(name)) return false;
  return config.objective != "reconstruction" || (!is_editor_parameter(name) && name != "noise_scale_ema");
}

using Named = std::map<std::string, at::Tensor>;

// The family trains all parameters or the editor's. Where others were trained here, all are numbered, and those that were
// not have no state, as PyTorch writes what never had a gradient.
model::NamedTensors numbered(model::NamedTensors const& model, Named const& state) {
  auto const trained = [&state](auto const& named) { return state.contains("exp_avg." + named.first); };
  bool const all = std::any_of(model.begin(), model.end(),
                               [&](auto const& named) { return trained(named) && !is_editor_parameter(named.first); });
  model::NamedTensors found;
  std::copy_if(model.begin(), model.end(), std::back_inserter(found),
               [&](auto const& named) { return named.first != "noise_scale_ema" && (all || trained(named)); });
  return found;
}

model::ReferenceOptimizer make_optimizer(model::NamedTensors const& parameters, Named const& state, Config const& config,
                                         at::Tensor const& count, std::int64_t ahead) {
  auto const& t = config.training;
  auto const rate = learning_rate({t.lr, t.warmup, t.train_steps, t.scheduler_type, ahead}, count).item<double>();
  model::ReferenceOptimizer optimizer;
  for (double const decay : {t.weight_decay, 0.0})
    optimizer.groups.push_back({rate, t.lr, t.beta1, t.beta2, 1e-8, decay, false, false, {}});
  Named const by_name(parameters.begin(), parameters.end());
  std::int64_t index = 0;
  for (auto const& name : model::optimizer_order(parameters)) {
    optimizer.groups[by_name.at(name).dim() == 1 ? 1 : 0].parameters.push_back(index);
    if (auto const average = state.find("exp_avg." + name); average != state.end())
      optimizer.state[index] = {count.item<double>(), average->second, state.at("exp_avg_sq." + name)};
    ++index;
  }
  return optimizer;
}

}  // namespace

model::ReferenceCheckpoint export_reference(dist::CheckpointState const& checkpoint, Config const& config,
                                            std::vector<dist::NamedTensor> const& set_aside,
                                            std::string const& origin) {
  refuse_departures(config, origin);
  warn_of_other_inputs(config, origin);
  Named state;
  for (auto const& [name, tensor] : checkpoint.state) state.emplace(name, tensor);
  model::ReferenceCheckpoint reference;
  for (auto const& [name, tensor] : checkpoint.model)
    if (belongs(name, config)) reference.model.emplace_back(name, tensor);
  auto const parameters = numbered(reference.model, state);
  for (auto const& [name, tensor] : set_aside) reference.model.emplace_back(name, tensor);
  auto const count = state.find("update_count");
  if (parameters.empty() || count == state.end()) return reference;
  refuse_rules(config, origin);
  auto const counters = nlohmann::json::parse(checkpoint.counters_json);
  auto const ahead = counters.value("schedule_ahead", std::int64_t{0});
  reference.updates = static_cast<std::int64_t>(count->second.item<double>());
  reference.optimizer = make_optimizer(parameters, state, config, count->second, ahead);
  reference.scheduler_steps = reference.updates + ahead;
  // Checkpoints of before this counter: as many as the config makes of the steps.
  reference.forward_passes = counters.value("forward_passes", checkpoint.step * config.training.grad_accum_steps);
  return reference;
}

}  // namespace duoflow::launch
