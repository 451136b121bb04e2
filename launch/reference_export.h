#pragma once
// From a checkpoint of duoflow to one of the LVSM family's training code: what its strict load_state_dict and its
// optimizer take.

#include <string>
#include <vector>

#include "dist/checkpoint/checkpoint.h"
#include "launch/config.h"
#include "model/reference_checkpoint/reference_checkpoint.h"

namespace duoflow::launch {

// `set_aside`: what import had set aside (loss networks); goes back into the state dict. CheckpointError when the
// checkpoint's model computes what no class of the family does (velocity head, light in AdaLN, normalised latents,
// scaled time), naming the config's keys.
model::ReferenceCheckpoint export_reference(dist::CheckpointState const& state, Config const& config,
                                            std::vector<dist::NamedTensor> const& set_aside, std::string const& origin);

}  // namespace duoflow::launch
