#pragma once
// Options that several commands have alike.

#include <string>

#include "data/tools/rewrite.h"
#include "dist/runtime.h"
#include "launch/editing.h"

namespace CLI {
class App;
}

namespace duoflow::launch {

// --weights auto|trained|ema; `name` keeps its value when it is not given.
void add_weights_option(CLI::App& app, std::string& name);
// --solver, --steps, --guidance, --stochastic, --noise-seed.
void add_editing_options(CLI::App& app, EditRequest& request);
// --shard-mib, which becomes `bytes`.
void add_shard_size_option(CLI::App& app, std::uint64_t& bytes);
// --dtype f32|f16|bf16 of latents; without it they stay as they are.
void add_latent_type_option(CLI::App& app, std::optional<data::DType>& dtype);

// ConfigError under mpirun with more than one rank, for a command whose work one process does.
void require_one_process(dist::Runtime const& runtime, std::string const& command);

}  // namespace duoflow::launch
