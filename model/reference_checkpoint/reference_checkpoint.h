#pragma once
// Checkpoints of the LVSM family's training code (reference/method.md 1.1; its train_flowmatch_editor.py writes them):
//
//   {"model": state dict, "optimizer": AdamW's, "lr_scheduler": LambdaLR's, "fwdbwd_pass_step": int,
//   "param_update_step": int}
//
// or a bare state dict. The optimizer numbers its parameters: those with dim != 1 in the order of named_parameters,
// then those with dim 1; and a state dict lists parameters in that order.

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/reference_checkpoint/torch_file.h"

namespace duoflow::model {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct ReferenceOptimizer {
  struct Group {
    double lr = 0, initial_lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
    bool amsgrad = false, maximize = false;
    std::vector<std::int64_t> parameters;
  };
  struct State {
    double step = 0;
    at::Tensor exp_avg, exp_avg_sq;
  };
  std::vector<Group> groups;
  std::map<std::int64_t, State> state;  // by parameter; one that never had a gradient has none
};

struct ReferenceCheckpoint {
  NamedTensors model;  // in the file's order; "module." of a data-parallel wrapper taken off
  std::optional<ReferenceOptimizer> optimizer;
  std::optional<std::int64_t> scheduler_steps;  // LambdaLR's last_epoch
  std::int64_t forward_passes = 0, updates = 0;
};

// FormatError as TorchFile's, or naming the part that is not of the form above.
ReferenceCheckpoint read_reference_checkpoint(ByteSource const& source);
// The state dict alone, of either form.
NamedTensors read_reference_weights(ByteSource const& source);
// With an optimizer, all five parts; else {"model": ...}, which the family's code loads as well.
void write_reference_checkpoint(ReferenceCheckpoint const& checkpoint, TorchWriter::Sink const& sink);

// The optimizer's numbering of these names (parameters only, in state-dict order).
std::vector<std::string> optimizer_order(NamedTensors const& parameters);

}  // namespace duoflow::model
