#include "model/loss/pixel_terms.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "model/fused/cuda/operators.h"

namespace duoflow::model {

at::Tensor mean_square_error(at::Tensor const& image, at::Tensor const& target) {
  bool const plain = image.scalar_type() == at::kFloat && target.scalar_type() == at::kFloat && image.sizes() == target.sizes();
  if (cuda::takes(image) && plain && !target.requires_grad()) return cuda::mean_square_error(image, target);
  return (image - target).square().flatten(1).mean(1);
}

at::Tensor mean_absolute_error(at::Tensor const& image, at::Tensor const& target) {
  return (image - target).abs().flatten(1).mean(1);
}

at::Tensor gradient_difference(at::Tensor const& image, at::Tensor const& target) {
  if (image.size(-1) < 2 || image.size(-2) < 2)
    throw std::invalid_argument(
        fmt::format("pictures of {} x {} pixels have no differences of neighbours, give larger ones or "
                    "gradient_loss_weight 0",
                    image.size(-2), image.size(-1)));
  at::Tensor const error = image - target;
  auto const mean_step = [&](std::int64_t dim) { return error.diff(1, dim).abs().flatten(1).mean(1); };
  return mean_step(-1) + mean_step(-2);
}

}  // namespace duoflow::model
