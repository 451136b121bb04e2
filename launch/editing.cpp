#include "launch/editing.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "launch/batches.h"
#include "model/flow/random.h"

namespace duoflow::launch {
namespace {

void require(bool holds, std::string const& problem) {
  if (!holds) throw ConfigError(problem);
}

// [B,n,d]: noise(sample) of each.
template <class Noise>
at::Tensor of_samples(std::vector<std::int64_t> const& samples, at::Device device, Noise const& noise) {
  std::vector<at::Tensor> each;
  for (auto const sample : samples) each.push_back(noise(static_cast<std::uint64_t>(sample)));
  return at::stack(each).to(device);
}

}  // namespace

void require_one_step(Config const& config, model::SolverOptions const& solver) {
  bool const once = solver.name == "euler" && solver.steps == 1;
  require(once || model::knows_time(config.model.editor),
          fmt::format("{} steps of {}: an editor of kind {} knows no time, one step of euler is its edit; leave solver and steps out",
                      solver.steps, solver.name, config.editor_kind));
}

EditOptions edit_options(Config const& config, EditRequest const& request) {
  EditOptions options{solver_options(config.flow), request.guidance, request.stochastic,
                      request.noise_seed.value_or(config.training.seed)};
  if (!request.solver.empty()) options.solver.name = request.solver;
  if (request.stochastic > 0) options.solver.name = "euler";
  if (request.steps > 0) options.solver.steps = static_cast<int>(request.steps);
  require_one_step(config, options.solver);
  require(std::isfinite(request.guidance) && request.guidance >= 0,
          fmt::format("--guidance {} (1 is the light's own velocity, 0 that without a light); give a number >= 0",
                      request.guidance));
  require(request.guidance == 1 || config.training.light_dropout > 0,
          fmt::format("--guidance {}: the checkpoint was trained with training.light_dropout = 0 (it knows no velocity "
                      "without a light); train with training.light_dropout, or leave --guidance at 1",
                      request.guidance));
  require(std::isfinite(request.stochastic) && request.stochastic >= 0,
          fmt::format("--stochastic {} (eta, 0 is the ODE); give a number >= 0", request.stochastic));
  bool const from_noise = config.model.editor == model::EditorKind::noise_to_relit;
  require(request.stochastic == 0 || from_noise,
          fmt::format("--stochastic {}: the sampler is of a path from noise, editor kind {} starts from the latents; "
                      "leave it out",
                      request.stochastic, config.editor_kind));
  require(!request.noise_seed || from_noise,
          fmt::format("--noise-seed: editor kind {} starts from the latents, not from noise; leave it out",
                      config.editor_kind));
  require(request.stochastic == 0 || request.solver.empty() || request.solver == "euler",
          fmt::format("--stochastic {} with --solver {}: it is a solver itself (Euler and Maruyama's); leave one out",
                      request.stochastic, request.solver));
  return options;
}

std::string solver_label(EditOptions const& options) {
  return options.stochastic > 0 ? "stochastic" : options.solver.name;
}

at::Tensor edit_latents(model::SceneModel const& model, at::Tensor const& x0, at::Tensor const& env,
                        std::vector<std::int64_t> const& samples, EditOptions const& options) {
  at::NoGradGuard const no_grad;
  auto const light = model.light_tokens(env), source = model.to_flow_space(x0);
  auto const none = options.guidance == 1 ? at::Tensor() : at::zeros_like(light);
  auto const field = [&](at::Tensor const& x, at::Tensor const& t) {
    auto const v = model.velocity(x, t, light, source);
    if (!none.defined()) return v;
    auto const v_none = model.velocity(x, t, none, source);
    return v_none + options.guidance * (v - v_none);
  };
  bool const from_noise = model.options().editor == model::EditorKind::noise_to_relit;
  auto const start = !from_noise ? source : of_samples(samples, source.device(), [&](std::uint64_t sample) {
    return starting_noise(model.options(), options.seed, sample);
  });
  if (options.stochastic == 0) return model.from_flow_space(model::solve(options.solver, field, start));
  auto const shape = start.sizes().slice(1).vec();
  auto const noise = [&](int step) {  // a position of its own for every step of every sample
    return of_samples(samples, source.device(), [&](std::uint64_t sample) {
      auto const position = sample | static_cast<std::uint64_t>(step) << 32;
      return model::normal_tensor(shape, options.seed, position, model::Stream::sampling);
    });
  };
  return model.from_flow_space(model::solve_stochastic(field, start, options.solver.steps, options.stochastic, noise));
}

}  // namespace duoflow::launch
