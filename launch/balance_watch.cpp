#include "launch/balance_watch.h"

#include <cmath>

#include <fmt/format.h>

namespace duoflow::launch {
namespace {

constexpr double kLowest = 0.2, kHighest = 0.8;  // the method's, for velocity_loss_ratio

bool in_range(double share) { return share >= kLowest && share <= kHighest; }

}  // namespace

std::optional<std::string> BalanceWatch::add(LossBalance const& balance) {
  if (every_ <= 0) return std::nullopt;
  double const share = balance.weighted_velocity / balance.total, gradient_share = 1 / (1 + balance.grad_ratio);
  if (std::isfinite(balance.velocity_loss) && std::isfinite(balance.render_loss) && std::isfinite(share)) {
    now_.velocity.add(balance.velocity_loss);
    now_.render.add(balance.render_loss);
    now_.velocity_share.add(share);
    if (std::isfinite(balance.raw_share)) now_.raw_share.add(balance.raw_share);
    if (std::isfinite(gradient_share)) now_.gradient_share.add(gradient_share);
  }
  if (++now_.steps < every_) return std::nullopt;
  auto hint = judge();
  now_ = {};
  return hint;
}

std::optional<std::string> BalanceWatch::judge() {
  if (now_.velocity_share.count == 0) return std::nullopt;
  double const share = now_.velocity_share.value(),
               gradient_share = now_.gradient_share.count > 0 ? now_.gradient_share.value() : 0.5;
  if (in_range(share) && in_range(gradient_share)) {
    if (said_raw_ || now_.raw_share.count == 0 || in_range(now_.raw_share.value())) return std::nullopt;
    said_raw_ = true;
    return of_raw_losses();
  }
  double const decides = in_range(gradient_share) ? share : gradient_share;  // the gradient moves the editor
  auto const [raise, lower] = decides < kLowest ? std::pair{"velocity_loss_weight", "render_loss_weight"}
                                                : std::pair{"render_loss_weight", "velocity_loss_weight"};
  return fmt::format(
      "the losses are out of balance over the last {} steps (velocity loss {:.3g}, render loss {:.3g} before their "
      "weights; the velocity loss's share is {:.2g} of the total and {:.2g} of the gradients' lengths at v_pred, "
      "wanted are {} to {}); raise {}, lower {}, or choose another weighting (docs/weighting.md)",
      now_.steps, now_.velocity.value(), now_.render.value(), share, gradient_share, kLowest, kHighest, raise, lower);
}

std::string BalanceWatch::of_raw_losses() const {
  return fmt::format(
      "the losses by themselves are out of balance over the last {} steps (velocity loss {:.3g}, render loss {:.3g}; "
      "the velocity loss's share of the two with velocity_loss_weight and render_loss_weight alone is {:.2g}, wanted "
      "are {} to {}) and the weighting makes up for it; nothing to do while grad_ratio stays within 0.25 to 4 and no "
      "weight at its clamp (said once)",
      now_.steps, now_.velocity.value(), now_.render.value(), now_.raw_share.value(), kLowest, kHighest);
}

}  // namespace duoflow::launch
