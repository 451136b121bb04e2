#pragma once
// A model of the golden files' sizes, inputs for it, and the whole of its functions in one graph.

#include <map>
#include <string>

#include <ATen/core/Tensor.h>

#include "model/scene_model.h"

namespace duoflow::model::test {

using Tensors = std::map<std::string, at::Tensor>;

// tests/golden/<name>.safetensors; keys under `prefix`, the prefix taken off.
Tensors golden(std::string const& name, std::string const& prefix);

ModelOptions small_options();      // duoflow's defaults at tests/golden/twin.py's sizes
ModelOptions reference_options();  // the reference's choices at the same sizes

// With the golden weights (no key is zero, one or negligible).
SceneModel small_model(ModelOptions const& options);

// tests/golden/twin.py's joint_chain: outputs by name, "loss" among them.
Tensors joint_chain(SceneModel const& model, Tensors const& in);
Tensors gradients(SceneModel const& model, at::Tensor const& loss);  // by key; zeros where the loss does not reach

double relative_error(at::Tensor const& value, at::Tensor const& expected);  // max|difference| / max|expected|, in fp64

}  // namespace duoflow::model::test
