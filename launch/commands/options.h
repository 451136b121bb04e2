#pragma once
// Options that several commands have alike.

#include <string>

#include "launch/editing.h"

namespace CLI {
class App;
}

namespace duoflow::launch {

// --weights auto|trained|ema; `name` keeps its value when it is not given.
void add_weights_option(CLI::App& app, std::string& name);
// --solver, --steps, --guidance, --stochastic, --noise-seed.
void add_editing_options(CLI::App& app, EditRequest& request);

}  // namespace duoflow::launch
