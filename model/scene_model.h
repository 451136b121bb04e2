#pragma once
// SceneModel: reconstructor, flow editor and renderer with the LVSM family's state-dict keys (reference/method.md 1.1;
// github.com/yiwenchen1999/LVSMExp model/LVSM_scene_encoder_decoder_wEditor.py, model/transformer.py).
//
// Shapes: B samples, V input views, T target views, n latent tokens, m light tokens, d width. Images in [0,1].
// Knows no ranks and opens no file: weights arrive as named tensors.

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/options.h"

namespace duoflow::model {

enum class Part { reconstructor, editor, renderer };

struct ModelParameter {
  std::string name;  // the reference's key
  at::Tensor tensor;
  Part part = Part::editor;
  bool trainable = true;  // false: a buffer (latent_mean, latent_std, noise_scale_ema)
  bool matrix = false;    // a factor of matrix products: what round_weights rounds
};

class SceneModel {
 public:
  // Initialised as method.md 1.1 and 1.6 say, from `seed` alone (same bits on every rank and device).
  SceneModel(ModelOptions const& options, std::uint64_t seed);
  // Parameters without values (meta tensors): names, shapes, parts and what trains, in no time and no memory.
  static SceneModel shapes_only(ModelOptions const& options);
  ~SceneModel();
  SceneModel(SceneModel&&) noexcept;

  ModelOptions const& options() const;
  void to(at::Device device);  // before parameters are handed to a flat buffer

  std::vector<ModelParameter> parameters() const;  // the reference's named_parameters order, then buffers
  // The same, part by part in the order in which a forward first uses them; its reverse is how a backward finishes.
  std::vector<ModelParameter> forward_order() const;
  void set_trainable(Part part, bool trainable);  // requires_grad of the part's parameters
  bool trainable(Part part) const;                // whether any of them is; true for a new model

  // With bf16 products: from here on they read roundings of their weights that are made now, instead of rounding at every
  // use. To be called again after every change of the weights, or forgotten before it. `kept`, by state-dict key: roundings
  // that somebody else keeps up to date, read where they are. Of other parts than `parts` none are kept: they round at every
  // use. Numbers are the same either way.
  void round_weights(std::map<std::string, at::Tensor> const& kept = {},
                     std::set<Part> const& parts = {Part::reconstructor, Part::editor, Part::renderer});
  void forget_rounded_weights();

  struct LoadReport {
    std::vector<std::string> missing, unexpected;
  };
  // Copies values in place (any float dtype). std::invalid_argument naming key and both shapes on a shape mismatch.
  // Keys absent from `names` keep their values and are reported as missing.
  LoadReport load(std::vector<std::pair<std::string, at::Tensor>> const& tensors);
  void set_latent_statistics(at::Tensor mean_d, at::Tensor std_d);

  // images [B,V,3,H,W] in [0,1], rays [B,V,6,H,W] -> latents [B,n,d] fp32
  at::Tensor reconstruct(at::Tensor const& images, at::Tensor const& rays) const;
  // env [B,E,9,h,w] (any h,w; brought to the tokenizer's size) -> [B,m,d]. kept [B], 1 or 0: "no light" where 0, which
  // is tokens of zeros: no map has them, since the directions are among its channels, and no key of the state dict is
  // needed.
  at::Tensor light_tokens(at::Tensor const& env, at::Tensor const& kept = {}) const;
  // Flow space: x [B,n,d] already normalised, t [B] -> velocity [B,n,d] fp32. source [B,n,d]: x0 in flow space, which
  // only noise_to_relit looks at.
  at::Tensor velocity(at::Tensor const& x_t, at::Tensor const& t, at::Tensor const& light_tokens,
                      at::Tensor const& source = {}) const;
  // latents [B,n,d] (renderer space), rays [B,T,6,H,W] -> images [B,T,3,H,W] in [0,1], fp32
  at::Tensor render(at::Tensor const& latents, at::Tensor const& rays) const;
  // Normalised (normalize_latents), then times latent_scale; and back.
  at::Tensor to_flow_space(at::Tensor const& latents) const;
  at::Tensor from_flow_space(at::Tensor const& latents) const;

 private:
  struct Impl;
  explicit SceneModel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace duoflow::model
