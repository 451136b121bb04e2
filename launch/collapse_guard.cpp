#include "launch/collapse_guard.h"

#include <cmath>
#include <stdexcept>

#include <fmt/format.h>

#include "launch/run_setup.h"

namespace duoflow::launch {

CollapseGuard::CollapseGuard(Config const& config, double first)
    : watches_(config.objective == "joint" && trains(config, model::Part::reconstructor) &&
               config.training.collapse_guard > 0),
      stops_(config.training.collapse_action == "stop"),
      share_(config.training.collapse_guard),
      first_(first) {}

std::string CollapseGuard::watch(std::int64_t step, double latent_std) {
  if (!watches_ || !std::isfinite(latent_std) || latent_std <= 0) return "";
  if (first_ == 0) first_ = latent_std;
  if (latent_std >= share_ * first_ || (said_ && !stops_)) return "";
  said_ = true;
  auto const what = fmt::format(
      "step {}: the latents' standard deviation has fallen from {:.3g} to {:.3g}, below "
      "training.collapse_guard = {} of it (the reconstructor makes all scenes alike, which makes the "
      "velocity loss small); raise render_loss_weight, or set "
      "training.freeze_reconstructor_renderer=true",
      step, first_, latent_std, share_);
  if (stops_) throw std::runtime_error(what);
  return what;
}

}  // namespace duoflow::launch
