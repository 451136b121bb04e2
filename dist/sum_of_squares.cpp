#include "dist/sum_of_squares.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace duoflow::dist {
namespace {

// On the CPU, where at::linalg_vector_norm would copy the gradients to fp64 first: in blocks of a fixed length and by
// eight lanes, so that neither threads nor vector units choose the order of the sum.
double squares_of(float const* x, std::int64_t n) {
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

}  // namespace

at::Tensor sum_of_squares(at::Tensor const& numbers) {
  if (!numbers.is_cpu()) return at::linalg_vector_norm(numbers, 2, std::nullopt, false, at::kDouble).square_();
  return at::scalar_tensor(squares_of(numbers.const_data_ptr<float>(), numbers.numel()), at::kDouble);
}

}  // namespace duoflow::dist
