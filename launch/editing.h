#pragma once
// Latents moved to another light: what evaluate and edit do with a trained editor.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "launch/config.h"
#include "model/flow/solver.h"
#include "model/scene_model.h"

namespace duoflow::launch {

// As given on a command line; what is not given is the config's.
struct EditRequest {
  std::string solver{};
  std::int64_t steps = 0;
  double guidance = 1;
  double stochastic = 0;
  std::optional<std::uint64_t> noise_seed{};
};

struct EditOptions {
  model::SolverOptions solver;
  // Classifier-free guidance (Ho and Salimans 2207.12598): v = v_none + guidance (v_light - v_none), v_none with "no
  // light" (training.light_dropout). 1: v_light, at half the cost.
  double guidance = 1;
  double stochastic = 0;   // eta of model::solve_stochastic; 0: the ODE's solver
  std::uint64_t seed = 0;  // of the noise where an editor starts from, and of the stochastic sampler's
};

// ConfigError for what the model cannot do: guidance without light dropout in its training, a stochastic sampler or a
// noise seed where nothing starts from noise, a solver beside the stochastic sampler, which is one; require_one_step.
EditOptions edit_options(Config const& config, EditRequest const& request);
// ConfigError where an editor that knows no time is asked for anything but one step of euler.
void require_one_step(Config const& config, model::SolverOptions const& solver);
// What an output calls it: the solver's name, or "stochastic".
std::string solver_label(EditOptions const& options);

// x0 [B,n,d] in renderer space, env [B,1,9,h,w] -> x1_hat [B,n,d] in renderer space. samples [B]: their numbers, which
// with the seed decide the noise, so that a sample's result does not depend on its batch.
at::Tensor edit_latents(model::SceneModel const& model, at::Tensor const& x0, at::Tensor const& env,
                        std::vector<std::int64_t> const& samples, EditOptions const& options);

}  // namespace duoflow::launch
