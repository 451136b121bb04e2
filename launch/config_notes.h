#pragma once
// Private to the configuration: written keys that the others leave without effect.

#include "launch/config.h"

namespace duoflow::launch {

// A note in config.notes for each.
void note_what_has_no_effect(Config& config);

}  // namespace duoflow::launch
