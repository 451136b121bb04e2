#include "model/scene_model.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/variable.h>

#include "model/editor.h"
#include "model/parameters.h"
#include "model/reconstructor.h"
#include "model/renderer.h"

namespace duoflow::model {
namespace {

constexpr double kWeightStd = 0.02;  // of tokenizers, heads, latents and, unless special_init lowers it, blocks
constexpr std::int64_t kEnvChannels = 9;

void check(bool fine, std::string const& problem) {
  if (!fine) throw std::invalid_argument(problem);
}

ModelOptions const& checked(ModelOptions const& o) {
  check(o.d > 0 && o.d_head > 0 && o.d % o.d_head == 0,
        fmt::format("d = {} is not a multiple of d_head = {} (heads share the width evenly), change one of them", o.d,
                    o.d_head));
  check(o.d >= 4, fmt::format("d = {} is below 4 (the time embedding needs two frequencies), raise it", o.d));
  check(o.patch_size > 0 && o.image_size % o.patch_size == 0,
        fmt::format("image_size = {} is not a multiple of patch_size = {}, change one of them", o.image_size,
                    o.patch_size));
  check(o.env_height > 0 && o.env_height % o.patch_size == 0,
        fmt::format("env_height = {} is not a multiple of patch_size = {}, change one of them", o.env_height,
                    o.patch_size));
  check(std::isfinite(o.latent_scale) && o.latent_scale > 0,
        fmt::format("latent_scale = {} (what the flow sees is multiplied and divided by it), use a positive number",
                    o.latent_scale));
  check(o.encoder_n_layer >= 0 && o.decoder_n_layer >= 0 && o.editor_n_layer >= 0 && o.n_latent_vectors > 0,
        fmt::format("layers {}, {}, {} and n_latent_vectors = {} (need layers >= 0 and latents > 0)", o.encoder_n_layer,
                    o.decoder_n_layer, o.editor_n_layer, o.n_latent_vectors));
  return o;
}

double block_std(ModelOptions const& o, std::size_t index, std::size_t layers) {
  if (!o.special_init) return kWeightStd;
  return kWeightStd / std::sqrt(2.0 * static_cast<double>(o.depth_init ? index + 1 : layers));
}

void add_blocks(Slots& slots, std::vector<Block>& blocks, std::string const& name, ModelOptions const& o, Part part) {
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    add_block_slots(slots, blocks[i], fmt::format("{}.{}.", name, i), o, block_std(o, i, blocks.size()), part);
  }
}

}  // namespace

namespace {

int forward_position(Part part) { return part == Part::reconstructor ? 0 : part == Part::editor ? 1 : 2; }

}  // namespace

struct SceneModel::Impl {
  ModelOptions options;
  Reconstructor reconstructor;
  Renderer renderer;
  Editor editor;
  at::Tensor latent_mean_D, latent_std_D, noise_scale_ema;
  Slots slots;
  struct Rounding {
    at::Tensor values;
    std::uint32_t version = 0;  // of the master that they were made of
  };
  std::vector<Rounding> roundings;  // by slot, once made

  explicit Impl(ModelOptions const& o) : options(checked(o)) {
    reconstructor.blocks.resize(static_cast<std::size_t>(o.encoder_n_layer));
    renderer.blocks.resize(static_cast<std::size_t>(o.decoder_n_layer));
    editor.blocks.resize(static_cast<std::size_t>(o.editor_n_layer));
    add_reference_slots();
    add_own_slots();
  }

  // The reference's named_parameters(): the root's own parameter first, then modules in the order they were registered.
  void add_reference_slots() {
    auto const& o = options;
    auto const d = o.d, pixels = o.patch_size * o.patch_size;
    Initial const weights = Initial::normal(kWeightStd);
    // The reference truncates the latents' normal at +-2, a hundred standard deviations out: no truncation.
    slots.push_back(
        {"n_light_field_latent", &reconstructor.latents_KD, {o.n_latent_vectors, d}, weights, Part::reconstructor});
    slots.push_back({"image_tokenizer.1.weight",
                     &reconstructor.tokenizer_DxF,
                     {d, pixels * kImageChannels},
                     weights,
                     Part::reconstructor});
    slots.push_back({"target_pose_tokenizer.1.weight",
                     &renderer.tokenizer_DxF,
                     {d, pixels * kRayChannels},
                     weights,
                     Part::renderer});
    slots.push_back(
        {"env_tokenizer.1.weight", &editor.tokenizer_DxF, {d, pixels * kEnvChannels}, weights, Part::editor});
    slots.push_back({"image_token_decoder.0.weight", &renderer.head_norm_D, {d}, Initial::one(), Part::renderer});
    slots.push_back({"image_token_decoder.1.weight", &renderer.head_FxD, {pixels * 3, d}, weights, Part::renderer});
    add_blocks(slots, reconstructor.blocks, "transformer_encoder", o, Part::reconstructor);
    add_blocks(slots, renderer.blocks, "transformer_decoder", o, Part::renderer);
    slots.push_back(
        {"transformer_input_layernorm_decoder.weight", &renderer.input_norm_D, {d}, Initial::one(), Part::renderer});
    add_editor_slots();
  }

  void add_editor_slots() {
    auto const& o = options;
    auto const layers = editor.blocks.size();
    for (std::size_t i = 0; i < layers; ++i) {
      auto const prefix = fmt::format("transformer_editor.{}.", i);
      if (knows_time(o.editor))
        add_adaln_block_slots(slots, editor.blocks[i], prefix, o, Part::editor);
      else
        add_block_slots(slots, editor.blocks[i], prefix, o, o.editor_init_scale * block_std(o, i, layers),
                        Part::editor);
    }
    if (o.editor == EditorKind::residual) {
      slots.push_back(
          matrix_slot("editor_residual_head.weight", editor.residual_head_DxD, {o.d, o.d}, Initial::zero(), Part::editor));
    }
    if (!knows_time(o.editor)) return;
    add_condition_mlp_slots(slots, editor.time_mlp, "time_embedder.", o.d, Part::editor);
    // The reference's class carries it in its state dict and never uses it: kept so that a checkpoint goes back as it
    // came.
    if (o.editor == EditorKind::noise_to_relit)
      slots.push_back({"noise_scale_ema", &noise_scale_ema, {}, Initial::one(), Part::editor, false});
  }

  void add_own_slots() {
    auto const d = options.d;
    bool const with_time = knows_time(options.editor);
    if (with_time && options.velocity_head) {
      slots.push_back({"editor_velocity_head.0.weight", &editor.head_norm_D, {d}, Initial::one(), Part::editor});
      slots.push_back(
          matrix_slot("editor_velocity_head.1.weight", editor.head_DxD, {d, d}, Initial::zero(), Part::editor));
    }
    if (with_time && options.light_in_adaln)
      add_condition_mlp_slots(slots, editor.light_mlp, "light_embedder.", d, Part::editor);
    slots.push_back({"latent_mean", &latent_mean_D, {d}, Initial::zero(), Part::editor, false});
    slots.push_back({"latent_std", &latent_std_D, {d}, Initial::one(), Part::editor, false});
  }
};

SceneModel::SceneModel(ModelOptions const& options, std::uint64_t seed) : impl_(std::make_unique<Impl>(options)) {
  for (std::size_t i = 0; i < impl_->slots.size(); ++i) {
    Slot& slot = impl_->slots[i];
    *slot.tensor = initial_value(slot, seed, i);
    slot.tensor->set_requires_grad(slot.trainable);
  }
}
SceneModel::SceneModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

SceneModel SceneModel::shapes_only(ModelOptions const& options) {
  auto impl = std::make_unique<Impl>(options);
  for (Slot& slot : impl->slots) {
    *slot.tensor = at::empty(slot.shape, at::TensorOptions(at::kFloat).device(at::kMeta));
    slot.tensor->set_requires_grad(slot.trainable);
  }
  return SceneModel(std::move(impl));
}

SceneModel::~SceneModel() = default;
SceneModel::SceneModel(SceneModel&&) noexcept = default;

ModelOptions const& SceneModel::options() const { return impl_->options; }

void SceneModel::to(at::Device device) {
  forget_rounded_weights();
  for (Slot& slot : impl_->slots) slot.tensor->set_data(slot.tensor->detach().to(device));
}

void SceneModel::round_weights(std::map<std::string, at::Tensor> const& kept, std::set<Part> const& parts) {
  if (impl_->options.compute == ComputeType::fp32) return;
  at::NoGradGuard const no_grad;
  impl_->roundings.resize(impl_->slots.size());
  for (std::size_t i = 0; i < impl_->slots.size(); ++i) {
    Slot const& slot = impl_->slots[i];
    if (slot.matrix == nullptr) continue;
    if (!parts.contains(slot.part)) {
      slot.matrix->rounded = at::Tensor();
      impl_->roundings[i] = {};
      continue;
    }
    if (auto const found = kept.find(slot.name); found != kept.end()) {
      slot.matrix->rounded = found->second;
      continue;
    }
    auto& [values, version] = impl_->roundings[i];
    // What does not train is changed by load alone, which counts in the version. What trains may be changed as a part of a
    // flat buffer, which does not.
    bool const stands = values.defined() && values.device() == slot.tensor->device() && !slot.tensor->requires_grad() &&
                        version == static_cast<std::uint32_t>(slot.tensor->_version());
    if (!values.defined() || values.device() != slot.tensor->device())
      values = at::empty(slot.tensor->sizes(), slot.tensor->options().dtype(at::kBFloat16));
    if (!stands) values.copy_(*slot.tensor);
    version = slot.tensor->requires_grad() ? ~std::uint32_t{0} : static_cast<std::uint32_t>(slot.tensor->_version());
    slot.matrix->rounded = values;
  }
}

void SceneModel::forget_rounded_weights() {
  for (Slot const& slot : impl_->slots)
    if (slot.matrix != nullptr) slot.matrix->rounded = at::Tensor();
}

std::vector<ModelParameter> SceneModel::parameters() const {
  std::vector<ModelParameter> all;
  for (Slot const& slot : impl_->slots) all.push_back({slot.name, *slot.tensor, slot.part, slot.trainable, slot.matrix != nullptr});
  return all;
}

// State-dict order is another one: the editor's embedders condition every block and stand behind them.
std::vector<ModelParameter> SceneModel::forward_order() const {
  auto const stage = [](ModelParameter const& parameter) {
    if (parameter.name.starts_with("image_token_decoder.") || parameter.name.starts_with("editor_velocity_head."))
      return 2;
    bool const in_block = parameter.name.starts_with("transformer_encoder.") ||
                          parameter.name.starts_with("transformer_decoder.") ||
                          parameter.name.starts_with("transformer_editor.");
    return in_block ? 1 : 0;
  };
  auto all = parameters();
  std::stable_sort(all.begin(), all.end(), [&](auto const& a, auto const& b) {
    return std::pair(forward_position(a.part), stage(a)) < std::pair(forward_position(b.part), stage(b));
  });
  return all;
}

void SceneModel::set_trainable(Part part, bool trainable) {
  for (Slot& slot : impl_->slots) {
    if (slot.part == part && slot.trainable) slot.tensor->set_requires_grad(trainable);
  }
}

bool SceneModel::trainable(Part part) const {
  for (Slot const& slot : impl_->slots)
    if (slot.part == part && slot.trainable && slot.tensor->requires_grad()) return true;
  return false;
}

SceneModel::LoadReport SceneModel::load(std::vector<std::pair<std::string, at::Tensor>> const& tensors) {
  std::map<std::string, Slot*> by_name;
  for (Slot& slot : impl_->slots) by_name[slot.name] = &slot;
  LoadReport report;
  at::NoGradGuard const no_graph;
  for (auto const& [name, tensor] :
       tensors) {  // all shapes before any value, so that an error leaves the model as it was
    auto const found = by_name.find(name);
    check(found == by_name.end() || tensor.sizes() == at::IntArrayRef(found->second->shape),
          fmt::format("{} has shape [{}] in the file and [{}] in the model (other sizes were configured then), "
                      "give the model the file's sizes",
                      name, fmt::join(tensor.sizes(), ","),
                      found == by_name.end() ? "" : fmt::format("{}", fmt::join(found->second->shape, ","))));
  }
  for (auto const& [name, tensor] : tensors) {
    auto const found = by_name.find(name);
    if (found == by_name.end()) {
      report.unexpected.push_back(name);
      continue;
    }
    found->second->tensor->copy_(tensor);
    by_name.erase(found);
  }
  for (Slot const& slot : impl_->slots) {
    if (by_name.count(slot.name) != 0) report.missing.push_back(slot.name);
  }
  return report;
}

void SceneModel::set_latent_statistics(at::Tensor mean_D, at::Tensor std_D) {
  at::NoGradGuard const no_graph;
  impl_->latent_mean_D.copy_(mean_D);
  impl_->latent_std_D.copy_(std_D);
}

at::Tensor SceneModel::reconstruct(at::Tensor const& images, at::Tensor const& rays) const {
  return impl_->reconstructor.forward(images, rays, impl_->options);
}

at::Tensor SceneModel::light_tokens(at::Tensor const& env, at::Tensor const& kept) const {
  at::Tensor const tokens = impl_->editor.light_tokens(env, impl_->options);
  return kept.defined() ? tokens * kept.view({-1, 1, 1}) : tokens;
}

at::Tensor SceneModel::velocity(at::Tensor const& x_t, at::Tensor const& t, at::Tensor const& light_tokens,
                                at::Tensor const& source) const {
  return impl_->editor.forward(x_t, t, light_tokens, source, impl_->options);
}

at::Tensor SceneModel::render(at::Tensor const& latents, at::Tensor const& rays) const {
  return impl_->renderer.forward(latents, rays, impl_->options);
}

at::Tensor SceneModel::to_flow_space(at::Tensor const& latents) const {
  auto const& o = impl_->options;
  at::Tensor const centred = o.normalize_latents ? (latents - impl_->latent_mean_D) / impl_->latent_std_D : latents;
  return o.latent_scale == 1 ? centred : centred * o.latent_scale;
}

at::Tensor SceneModel::from_flow_space(at::Tensor const& latents) const {
  auto const& o = impl_->options;
  at::Tensor const centred = o.latent_scale == 1 ? latents : latents / o.latent_scale;
  return o.normalize_latents ? centred * impl_->latent_std_D + impl_->latent_mean_D : centred;
}

}  // namespace duoflow::model
