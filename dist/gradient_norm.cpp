#include "dist/gradient_norm.h"

#include <algorithm>
#include <vector>

#include <ATen/ATen.h>

#include "dist/sum_of_squares.h"

namespace duoflow::dist {
namespace {

// Elements whose squares are summed by one call.
constexpr std::int64_t longest_chunk = std::int64_t{1} << 22;

}  // namespace

GradientNorm::GradientNorm(FlatBuffer const& buffer, Communicator shared_over) : group_(std::move(shared_over)) {
  std::int64_t const ranks = group_.size(), slices = buffer.slices();
  std::int64_t slot = 0;
  for (BucketRange const& bucket : buffer.buckets()) {
    std::int64_t const slice = (bucket.end - bucket.begin) / slices, owned = slices / ranks;
    for (std::int64_t s = 0; s < slices; ++s) {
      bool const is_own = s / owned == group_.rank();
      std::int64_t const own_slice = bucket.begin / ranks + (s - group_.rank() * owned) * slice;
      for (std::int64_t begin = 0; begin < slice; begin += longest_chunk, ++slot) {
        if (is_own) chunks_.push_back({own_slice + begin, std::min(longest_chunk, slice - begin), slot});
      }
    }
  }
  auto const on_device = at::TensorOptions().device(buffer.gradients().device());
  squares_ = at::zeros({slot}, on_device.dtype(at::kDouble));
  std::vector<std::int64_t> slots;
  for (Chunk const& chunk : chunks_) slots.push_back(chunk.slot);
  slots_ = at::tensor(slots, at::kLong).to(on_device.device());
}

GradientNorm::Measured GradientNorm::measure(at::Tensor const& own_gradients, double max_norm) {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> squares;
  for (Chunk const& chunk : chunks_) squares.push_back(sum_of_squares(own_gradients.narrow(0, chunk.begin, chunk.length)));
  squares_.zero_();
  if (!squares.empty()) squares_.index_copy_(0, slots_, at::stack(squares));
  CollectiveLabel const label("gradient norm");
  if (group_.size() > 1) all_reduce(group_, squares_).wait();
  at::Tensor const norm = squares_.sum().sqrt();
  return {norm.to(at::kFloat), max_norm > 0 ? (max_norm / (norm + 1e-6)).clamp_max(1.0).to(at::kFloat) : at::Tensor()};
}

at::Tensor GradientNorm::clip(at::Tensor const& own_gradients, double max_norm) {
  Measured const measured = measure(own_gradients, max_norm);
  at::NoGradGuard no_grad;
  if (measured.factor.defined()) own_gradients.mul_(measured.factor);
  return measured.norm;
}

}  // namespace duoflow::dist
