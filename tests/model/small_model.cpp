#include "tests/model/small_model.h"

#include <stdexcept>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "dist/checkpoint/safetensors.h"

namespace duoflow::model::test {

Tensors golden(std::string const& name, std::string const& prefix) {
  Tensors found;
  for (auto const& [key, tensor] : dist::read_safetensors(DUOFLOW_SOURCE_DIR "/tests/golden/" + name + ".safetensors")) {
    if (key.starts_with(prefix)) found[key.substr(prefix.size())] = tensor;
  }
  if (found.empty()) throw std::runtime_error("no " + prefix + "* in tests/golden/" + name + ".safetensors, run make_model.py");
  return found;
}

ModelOptions small_options() {
  ModelOptions o;
  o.d = 32;
  o.d_head = 16;
  o.patch_size = 4;
  o.encoder_n_layer = o.decoder_n_layer = o.editor_n_layer = 2;
  o.n_latent_vectors = 6;
  o.image_size = 16;
  o.env_height = 8;
  return o;
}

ModelOptions reference_options() {
  ModelOptions o = small_options();
  o.time_scale = 1;
  o.velocity_head = o.light_in_adaln = o.normalize_latents = false;
  return o;
}

SceneModel small_model(ModelOptions const& options) {
  SceneModel model(options, 1);
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (auto const& [key, value] : golden("model_weights", "weight.")) weights.emplace_back(key, value);
  auto const report = model.load(weights);
  if (!report.missing.empty()) throw std::runtime_error("golden weights lack " + report.missing.front());
  return model;
}

Tensors joint_chain(SceneModel const& model, Tensors const& in) {
  Tensors out;
  out["latents"] = model.reconstruct(in.at("images"), in.at("rays"));
  out["light_tokens"] = model.light_tokens(in.at("env"));
  at::Tensor const t = in.at("t").view({-1, 1, 1});
  out["x_t"] = (1 - t) * model.to_flow_space(out["latents"]) + t * model.to_flow_space(in.at("x1"));
  out["velocity"] = model.velocity(out["x_t"], in.at("t"), out["light_tokens"]);
  out["x_hat"] = model.from_flow_space(out["x_t"] + (1 - t) * out["velocity"]);
  out["render"] = model.render(out["x_hat"], in.at("target_rays"));
  out["loss"] = at::mse_loss(out["velocity"], in.at("target_velocity")) + at::mse_loss(out["render"], in.at("target_image"));
  return out;
}

Tensors gradients(SceneModel const& model, at::Tensor const& loss) {
  auto const parameters = model.parameters();
  for (auto const& parameter : parameters) parameter.tensor.mutable_grad() = at::Tensor();
  loss.backward();
  Tensors found;
  for (auto const& parameter : parameters) {
    if (!parameter.trainable) continue;
    at::Tensor const& gradient = parameter.tensor.grad();
    found[parameter.name] = gradient.defined() ? gradient.clone() : at::zeros_like(parameter.tensor);
  }
  return found;
}

double relative_error(at::Tensor const& value, at::Tensor const& expected) {
  double const scale = expected.to(at::kDouble).abs().max().item<double>();
  return (value.to(at::kDouble) - expected.to(at::kDouble)).abs().max().item<double>() / scale;
}

}  // namespace duoflow::model::test
