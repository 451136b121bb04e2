#include "launch/editor_gradients.h"

#include <ATen/ATen.h>

#include "model/scene_model.h"

namespace duoflow::launch {

EditorGradients::EditorGradients(dist::FlatBuffer const& buffer, dist::Communicator const& shared_over)
    : norm_(buffer, shared_over), kept_(at::zeros({buffer.size() / shared_over.size()}, buffer.gradients().options())) {
  for (auto const& range : dist::owned_ranges(buffer, shared_over.rank(), shared_over.size()))
    if (range.section != static_cast<int>(model::Part::editor))
      outside_.push_back(kept_.narrow(0, range.own, range.numel));
}

void EditorGradients::keep_velocity(at::Tensor const& own_gradients) { kept_.copy_(own_gradients); }

model::GradientSquares EditorGradients::squares(at::Tensor const& own_gradients, at::Tensor const& velocity_weight) {
  at::NoGradGuard const no_grad;
  kept_.mul_(velocity_weight);
  auto const velocity = square();
  kept_.neg_().add_(own_gradients);
  return {velocity, square()};
}

at::Tensor EditorGradients::square() {
  for (auto& range : outside_) range.zero_();
  return norm_.clip(kept_, /*max_norm=*/0).to(at::kDouble).square();
}

}  // namespace duoflow::launch
