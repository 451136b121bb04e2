#pragma once
// Weights of a pretrained network, handed over as named tensors and checked key by key. They are constants: no
// parameter of the model, in no state dict, in no gradient buffer.

#include <set>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

class FrozenWeights {
 public:
  // `what`: the network, for messages ("LPIPS with VGG16"). The tensors' device and type are kept.
  FrozenWeights(NamedTensors const& tensors, std::string what);

  // The tensor of that name. std::invalid_argument when it is missing (naming the nearest that is there), has another
  // shape, is not a floating-point tensor, or holds numbers that are not finite.
  at::Tensor take(std::string const& name, at::IntArrayRef shape);
  // After the last take(): std::invalid_argument naming a tensor that no layer took and the nearest one that exists.
  // Names that begin with one of `unused_prefixes` are known not to be needed.
  void finish(std::vector<std::string> const& unused_prefixes = {}) const;

 private:
  NamedTensors const tensors_;
  std::string const what_;
  std::set<std::string> taken_;
};

}  // namespace duoflow::model
