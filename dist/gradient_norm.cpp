#include "dist/gradient_norm.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace duoflow::dist {
namespace {

// Elements whose squares are summed by one call.
constexpr std::int64_t longest_chunk = std::int64_t{1} << 22;

// On the CPU, where at::linalg_vector_norm would copy the gradients to fp64 first: in blocks of a fixed length and by
// eight lanes, so that neither threads nor vector units choose the order of the sum.
double sum_of_squares(float const* x, std::int64_t n) {
  constexpr std::int64_t block = std::int64_t{1} << 15, lanes = 8;
  std::vector<double> sums(static_cast<std::size_t>((n + block - 1) / block));
  at::parallel_for(0, static_cast<std::int64_t>(sums.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double lane[lanes] = {};
      std::int64_t i = b * block, last = std::min(n, i + block);
      for (; i + lanes <= last; i += lanes)
        for (std::int64_t j = 0; j < lanes; ++j) lane[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
      for (; i < last; ++i) lane[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      for (double const l : lane) sums[static_cast<std::size_t>(b)] += l;
    }
  });
  double sum = 0;
  for (double const s : sums) sum += s;
  return sum;
}

at::Tensor square_of(at::Tensor const& chunk) {
  if (!chunk.is_cpu()) return at::linalg_vector_norm(chunk, 2, std::nullopt, false, at::kDouble).square_();
  return at::scalar_tensor(sum_of_squares(chunk.const_data_ptr<float>(), chunk.numel()), at::kDouble);
}

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
  for (Chunk const& chunk : chunks_) squares.push_back(square_of(own_gradients.narrow(0, chunk.begin, chunk.length)));
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
