#include "launch/commands/options.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "launch/checkpoint_weights.h"
#include "launch/config.h"

namespace duoflow::launch {

void add_weights_option(CLI::App& app, std::string& name) {
  app.add_option("--weights", name,
                 "the checkpoint's weights: trained, ema (their average), auto: ema where it has one")
      ->check(CLI::IsMember(weights_choice_names()))
      ->capture_default_str();
}

void add_editing_options(CLI::App& app, EditRequest& request) {
  app.add_option("--solver", request.solver, "solver (default: the config's)");
  app.add_option("--steps", request.steps, "solver steps (default: the config's)")->check(CLI::PositiveNumber);
  app.add_option(
         "--guidance", request.guidance,
         "how far beyond the velocity without a light, for a model trained with training.light_dropout; 1: none")
      ->capture_default_str();
  app.add_option("--stochastic", request.stochastic,
                 "eta of stochastic sampling, for an editor that starts from noise; 0: the ODE")
      ->capture_default_str();
  app.add_option("--noise-seed", request.noise_seed, "seed of that noise (default: the config's training.seed)");
}

void add_shard_size_option(CLI::App& app, std::uint64_t& bytes) {
  app.add_option_function<std::uint64_t>(
         "--shard-mib", [&bytes](std::uint64_t const& mib) { bytes = mib << 20; }, "most MiB in a file")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 20))
      ->default_str(std::to_string(bytes >> 20));
}

void add_latent_type_option(CLI::App& app, std::optional<data::DType>& dtype) {
  app.add_option_function<std::string>(
         "--dtype", [&dtype](std::string const& name) { dtype = data::dtype_from_string(name); },
         "type to store the latents in, rounded to nearest (default: as they are)")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}));
}

void require_one_process(dist::Runtime const& runtime, std::string const& command) {
  if (runtime.size() > 1)
    throw ConfigError(fmt::format("{} runs as one process ({} ranks were started); start it without mpirun", command,
                                  runtime.size()));
}

}  // namespace duoflow::launch
