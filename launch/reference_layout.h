#pragma once
// What a state dict of the LVSM family is of: the class and its sizes, told from the names and shapes in it, and which
// of its tensors are the model's.

#include <string>
#include <vector>

#include "launch/config.h"
#include "model/reference_checkpoint/reference_checkpoint.h"

namespace duoflow::launch {

struct ReferenceLayout {
  model::NamedTensors parameters;  // all the family's optimizer may know of, in its order; set-aside ones too
  model::NamedTensors model;       // what a model here holds
  model::NamedTensors set_aside;   // loss networks, and parts that no model here has (their names begin otherwise)
  std::vector<std::pair<std::string, std::string>> settings;  // config key -> value, as the tensors say
  std::string class_name;
};

// CheckpointError: a part that cannot be left out without changing what the model computes (the DPT head, an editor of
// point lights alone).
ReferenceLayout reference_layout(model::NamedTensors const& state_dict, std::string const& origin);

// Where a config says another thing than the tensors. CheckpointError listing all such keys with both values.
void check_layout(ReferenceLayout const& layout, Config const& config, std::string const& origin);

// Parameters that the family's freeze_reconstructor_and_renderer leaves trainable.
bool is_editor_parameter(std::string const& name);

}  // namespace duoflow::launch
