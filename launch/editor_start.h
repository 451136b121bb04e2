#pragma once
// Where the editor's blocks begin (model.transformer.editor.init), beside their own initial values.
//
// A block with AdaLN takes a plain block's place exactly: its modulation does not look at the condition yet (weight
// zero), its bias holds the plain block's norm gains as scales (gain - 1), no shift, and open gates (1). So what was
// loaded acts from the first step, where the reference's zero gates would hide it; LayerNorm's eps is AdaLN's 1e-6, not
// 1e-5. The velocity head, where there is one, stays zero: the first edit is still the identity.

#include "launch/config.h"
#include "model/scene_model.h"

namespace duoflow::launch {

// After training.init_from. one_step: blocks and light tokenizer of the editor in init_checkpoint. decoder: blocks of
// this model's renderer, the first ones. ConfigError naming the key and the nearest one there is, where one is missing
// (the source has fewer blocks, or blocks of another kind) or has another shape.
void start_editor(model::SceneModel& model, Config const& config);

}  // namespace duoflow::launch
