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
    velocity_.add(balance.velocity_loss);
    render_.add(balance.render_loss);
    velocity_share_.add(share);
    if (std::isfinite(gradient_share)) gradient_share_.add(gradient_share);
  }
  if (++steps_ < every_) return std::nullopt;
  auto hint = judge();
  *this = BalanceWatch(every_);
  return hint;
}

std::optional<std::string> BalanceWatch::judge() const {
  if (velocity_share_.count == 0) return std::nullopt;
  double const share = velocity_share_.value(),
               gradient_share = gradient_share_.count > 0 ? gradient_share_.value() : 0.5;
  if (in_range(share) && in_range(gradient_share)) return std::nullopt;
  double const decides = in_range(gradient_share) ? share : gradient_share;  // the gradient moves the editor
  auto const [raise, lower] = decides < kLowest ? std::pair{"velocity_loss_weight", "render_loss_weight"}
                                                : std::pair{"render_loss_weight", "velocity_loss_weight"};
  return fmt::format(
      "the losses are out of balance over the last {} steps (velocity loss {:.3g}, render loss {:.3g} before their "
      "weights; the velocity loss's share is {:.2g} of the total and {:.2g} of the gradients' lengths at v_pred, "
      "wanted are {} to {}); raise {}, lower {}, or choose another weighting (docs/weighting.md)",
      steps_, velocity_.value(), render_.value(), share, gradient_share, kLowest, kHighest, raise, lower);
}

}  // namespace duoflow::launch
