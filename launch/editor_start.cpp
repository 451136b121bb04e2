#include "launch/editor_start.h"

#include <map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "launch/logging.h"
#include "launch/model_setup.h"
#include "launch/weights_file.h"
#include "model/edit_distance.h"

namespace duoflow::launch {
namespace {

using Named = std::map<std::string, at::Tensor>;

Named named(model::SceneModel const& model) {
  Named tensors;
  for (auto const& [name, tensor] : model_tensors(model)) tensors.emplace(name, tensor);
  return tensors;
}

class Source {
 public:
  Source(Named tensors, std::string origin) : tensors_(std::move(tensors)), origin_(std::move(origin)) {}
  std::string const& origin() const { return origin_; }

  // Tensors of an editor beyond `blocks` plain blocks: without them what starts would compute something else.
  void require_no_more(std::int64_t blocks) const {
    auto const more = fmt::format("transformer_editor.{}.", blocks);
    for (auto const& [name, tensor] : tensors_) {
      if (name.starts_with("editor_residual_head."))
        throw ConfigError(fmt::format(
            "model.transformer.editor.init: {} is a residual editor ({}: its head scales what the blocks give, which a flow editor has "
            "not); give a one-step editor",
            origin_, name));
      if (name.starts_with(more))
        throw ConfigError(fmt::format("model.transformer.editor.init: {} has more blocks than the {} of the editor ({} would be left out); "
                                      "raise model.transformer.editor.n_layer",
                                      origin_, blocks, name));
    }
  }

  at::Tensor get(std::string const& name, at::IntArrayRef shape) const {
    auto const found = tensors_.find(name);
    if (found == tensors_.end()) {
      std::vector<std::string> names;
      for (auto const& [other, tensor] : tensors_) names.push_back(other);
      auto const near = model::nearest_name(name, names);
      throw ConfigError(fmt::format(
          "model.transformer.editor.init: {} has no {}{} (the editor asks for as many plain blocks as it has); give "
          "another source, or lower model.transformer.editor.n_layer",
          origin_, name, near.empty() ? "" : fmt::format(", the nearest is {}", near)));
    }
    if (found->second.sizes() != shape)
      throw ConfigError(fmt::format(
          "model.transformer.editor.init: {} of {} has shape [{}], the editor's [{}]; give both models one size", name,
          origin_, fmt::join(found->second.sizes(), ","), fmt::join(shape, ",")));
    return found->second.to(at::kFloat);
  }

 private:
  Named tensors_;
  std::string origin_;
};

void open_block(Named const& own, Source const& source, std::string const& to, std::string const& from) {
  at::Tensor bias = own.at(to + "adaLN_modulation.1.bias");
  auto const width = bias.numel() / 6;
  own.at(to + "adaLN_modulation.1.weight").zero_();
  auto const part = [&](int index) { return bias.narrow(0, index * width, width); };
  for (int const half : {0, 1}) {  // attention, then the MLP: shift, scale, gate
    part(3 * half).zero_();
    part(3 * half + 1).copy_(source.get(fmt::format("{}norm{}.weight", from, half + 1), {width}) - 1);
    part(3 * half + 2).fill_(1);
  }
}

void copy_block(Named const& own, Source const& source, std::string const& to, std::string const& from) {
  for (auto const& [name, tensor] : own) {
    if (!name.starts_with(to)) continue;
    auto const key = name.substr(to.size());
    if (!key.starts_with("adaLN_modulation.")) tensor.copy_(source.get(from + key, tensor.sizes()));
  }
  if (own.contains(to + "adaLN_modulation.1.bias")) open_block(own, source, to, from);
}

}  // namespace

void start_editor(model::SceneModel& model, Config const& config) {
  if (config.editor_init == "zero") return;
  at::NoGradGuard const no_graph;
  auto const own = named(model);
  bool const from_renderer = config.editor_init == "decoder";
  Named tensors = own;
  if (!from_renderer) {
    tensors.clear();
    auto const given = read_weights_at(config.editor_init_checkpoint, WeightsChoice::automatic);
    require_real_numbers(given, config.editor_init_checkpoint);
    for (auto const& [name, tensor] : given) tensors.emplace(name, tensor);
  }
  Source const source(std::move(tensors), from_renderer ? "the renderer" : config.editor_init_checkpoint);
  if (!from_renderer) source.require_no_more(config.model.editor_n_layer);
  for (std::int64_t i = 0; i < config.model.editor_n_layer; ++i)
    copy_block(own, source, fmt::format("transformer_editor.{}.", i),
               fmt::format("{}.{}.", from_renderer ? "transformer_decoder" : "transformer_editor", i));
  auto const& tokenizer = own.at("env_tokenizer.1.weight");
  if (!from_renderer) tokenizer.copy_(source.get("env_tokenizer.1.weight", tokenizer.sizes()));
  log_info(fmt::format("the editor's {} blocks start as those of {}", config.model.editor_n_layer, source.origin()));
}

}  // namespace duoflow::launch
