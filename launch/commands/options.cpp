#include "launch/commands/options.h"

#include <CLI/CLI.hpp>

#include "launch/checkpoint_weights.h"

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

}  // namespace duoflow::launch
