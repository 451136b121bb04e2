#include "launch/reference_layout.h"

#include <cmath>
#include <set>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dist/error.h"
#include "launch/weights_file.h"

namespace duoflow::launch {
namespace {

constexpr char const* kBuffer = "noise_scale_ema";
std::string const kTransformer = "model.transformer.", kEditor = kTransformer + "editor.";

at::Tensor const* find(model::NamedTensors const& tensors, std::string const& name) {
  for (auto const& [other, tensor] : tensors)
    if (other == name) return &tensor;
  return nullptr;
}

bool any_with(model::NamedTensors const& tensors, std::string const& prefix) {
  for (auto const& [name, tensor] : tensors)
    if (name.starts_with(prefix)) return true;
  return false;
}

// Blocks are numbered from 0: how many numbers there are behind the prefix.
std::int64_t blocks(model::NamedTensors const& tensors, std::string const& prefix) {
  std::set<std::string> numbers;
  for (auto const& [name, tensor] : tensors)
    if (name.starts_with(prefix))
      numbers.insert(name.substr(prefix.size(), name.find('.', prefix.size()) - prefix.size()));
  return std::ssize(numbers);
}

// A part that no model here has, if the rest does without it.
bool is_extra(std::string const& name, bool has_light_maps) {
  return name.starts_with("transformer_decoder_albedo.") ||
         (has_light_maps && name.starts_with("point_light_tokenizer."));
}

std::string class_of(model::NamedTensors const& tensors) {
  if (!any_with(tensors, "transformer_editor.")) return "model.LVSM_scene_encoder_decoder.Images2LatentScene";
  if (any_with(tensors, "editor_residual_head."))
    return "model.LVSM_scene_encoder_decoder_wEditor_residual.LatentSceneEditor";
  if (!any_with(tensors, "time_embedder.")) return "model.LVSM_scene_encoder_decoder_wEditor.LatentSceneEditor";
  return find(tensors, kBuffer) != nullptr ? "model.LVSM_flow_match_editor_noise2relit.FlowMatchEditor"
                                           : "model.LVSM_flow_match_editor.FlowMatchEditor";
}

std::string editor_of(model::NamedTensors const& tensors) {
  if (any_with(tensors, "editor_residual_head.")) return "residual";
  if (!any_with(tensors, "time_embedder.")) return "one_step";
  return find(tensors, kBuffer) != nullptr ? "noise_to_relit" : "flow";
}

void add_sizes(ReferenceLayout& layout) {
  auto const& tensors = layout.model;
  auto const add = [&layout](std::string const& key, auto const& value) {
    layout.settings.emplace_back(key, fmt::format("{}", value));
  };
  auto const* latents = find(tensors, "n_light_field_latent");
  if (latents != nullptr && latents->dim() == 2) {
    add(kTransformer + "n_latent_vectors", latents->size(0));
    add(kTransformer + "d", latents->size(1));
  }
  auto const* gain = find(tensors, "transformer_encoder.0.attn.q_norm.weight");
  if (gain != nullptr) add(kTransformer + "d_head", gain->numel());
  add(kTransformer + "use_qk_norm", gain != nullptr);
  if (auto const* tokenizer = find(tensors, "image_tokenizer.1.weight"); tokenizer != nullptr && tokenizer->dim() == 2)
    add("model.image_tokenizer.patch_size", std::llround(std::sqrt(static_cast<double>(tokenizer->size(1)) / 9)));
  add(kTransformer + "encoder_n_layer", blocks(tensors, "transformer_encoder."));
  add(kTransformer + "decoder_n_layer", blocks(tensors, "transformer_decoder."));
  if (!any_with(tensors, "transformer_editor.")) return;
  add(kEditor + "n_layer", blocks(tensors, "transformer_editor."));
  add(kEditor + "kind", editor_of(tensors));
  if (!any_with(tensors, "time_embedder.")) return;
  add(kEditor + "velocity_head", any_with(tensors, "editor_velocity_head."));
  add(kEditor + "light_in_adaln", any_with(tensors, "light_embedder."));
}

}  // namespace

bool is_editor_parameter(std::string const& name) {
  for (auto const* prefix :
       {"env_tokenizer.", "point_light_tokenizer.", "transformer_editor.", "time_embedder.", "editor_residual_head."})
    if (name.starts_with(prefix)) return true;
  return false;
}

ReferenceLayout reference_layout(model::NamedTensors const& state_dict, std::string const& origin) {
  ReferenceLayout layout;
  bool const has_light_maps = any_with(state_dict, "env_tokenizer.");
  if (any_with(state_dict, "point_light_tokenizer.") && !has_light_maps)
    throw dist::CheckpointError(fmt::format(
        "{}: its editor sees point lights alone (left out here: it would see no light); give a checkpoint that "
        "was trained with light maps",
        origin));
  for (auto const& [name, tensor] : state_dict) {
    if (name.starts_with("image_token_decoder.") && !name.starts_with("image_token_decoder.0.") &&
        !name.starts_with("image_token_decoder.1."))
      throw dist::CheckpointError(fmt::format(
          "{}: {} belongs to the reference's DPT decoder head (left out here: the pictures would be others); "
          "give a checkpoint with the plain head",
          origin, name));
    bool const aside = is_loss_network(name) || is_extra(name, has_light_maps);
    (aside ? layout.set_aside : layout.model).emplace_back(name, tensor);
    if (!is_loss_network(name) && name != kBuffer) layout.parameters.emplace_back(name, tensor);
  }
  layout.class_name = class_of(state_dict);
  add_sizes(layout);
  return layout;
}

void check_layout(ReferenceLayout const& layout, Config const& config, std::string const& origin) {
  std::vector<std::string> differences;
  auto copy = config;
  auto const keys = config_keys(copy);
  for (auto const& [name, value] : layout.settings)
    for (auto const& key : keys) {
      if (key.name != name) continue;
      auto const has = key.get() == value || key.get() == "\"" + value + "\"";
      if (!has) differences.push_back(fmt::format("{} is {} in the config, {} in the file", name, key.get(), value));
    }
  if (!differences.empty())
    throw dist::CheckpointError(
        fmt::format("{}: of another model than the config's: {}; give the config it was trained with, or none: the "
                    "sizes are then the file's",
                    origin, fmt::join(differences, "; ")));
}

}  // namespace duoflow::launch
