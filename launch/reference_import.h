#pragma once
// From a checkpoint of the LVSM family's training code to one of duoflow, as far as training goes on from it as there:
// weights, Adam's moments and step, the position in the learning rate's schedule, counters. No file is opened here.

#include <string>
#include <vector>

#include "dist/checkpoint/checkpoint.h"
#include "launch/config.h"
#include "model/reference_checkpoint/reference_checkpoint.h"

namespace duoflow::launch {

struct ImportRequest {
  std::string origin;                  // the file's name, for messages
  std::string config;                  // path of a YAML file; empty: the model is told from the tensors
  std::vector<std::string> overrides;  // key=value; they win over what the optimizer was saved with
  bool weights_only = false;           // leave optimizer, schedule and counters behind
};

struct Imported {
  dist::CheckpointState state;
  Config config;
  std::vector<dist::NamedTensor> set_aside;  // loss networks and parts that no model here has
  std::vector<std::string> notes;            // what a user should know, one line each
};

// CheckpointError naming the tensor: missing (with the nearest there is), unknown, of another shape, not finite; sizes
// other than the config's; an optimizer that does not fit the parameters.
Imported import_reference(model::ReferenceCheckpoint const& checkpoint, ImportRequest const& request);

}  // namespace duoflow::launch
