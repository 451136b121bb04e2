#pragma once
// Options that several commands have alike.

#include <string>

#include "launch/editing.h"

namespace CLI {
class App;
}

namespace duoflow::launch {

// --solver, --steps, --guidance, --stochastic, --noise-seed.
void add_editing_options(CLI::App& app, EditRequest& request);

}  // namespace duoflow::launch
