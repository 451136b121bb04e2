#include "dist/sharded_adamw.h"

#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::dist {
namespace {

// Elements whose squares are summed by one call: bounds the fp64 copy that some kernels make (32 MiB).
constexpr std::int64_t norm_chunk = std::int64_t{1} << 22;

void check_scalar(char const* name, at::Tensor const& scalar, at::Device device) {
  if (scalar.scalar_type() != at::kFloat || scalar.numel() != 1 || scalar.device() != device) {
    throw std::invalid_argument(fmt::format("{} is {} with {} elements on {}, expected one Float on {}", name,
                                            c10::toString(scalar.scalar_type()), scalar.numel(), scalar.device().str(),
                                            device.str()));
  }
}

}  // namespace

ShardedAdamW::ShardedAdamW(FlatBuffer& buffer, AdamWOptions const& options)
    : buffer_(buffer),
      options_(options),
      exp_avg_(at::zeros_like(buffer.parameters())),
      exp_avg_sq_(at::zeros_like(buffer.parameters())),
      update_count_(at::zeros({}, buffer.parameters().options())) {
  for (GroupRun const& run : buffer.group_runs()) {
    if (run.group < 0 || static_cast<std::size_t>(run.group) >= options_.weight_decay.size()) {
      throw std::invalid_argument(fmt::format("parameter group {} has no weight decay ({} are given), give one for each",
                                              run.group, options_.weight_decay.size()));
    }
  }
}

void ShardedAdamW::step(at::Tensor const& learning_rate, at::Tensor const& found_inf) {
  at::NoGradGuard no_grad;
  check_scalar("learning_rate", learning_rate, buffer_.parameters().device());
  check_scalar("found_inf", found_inf, buffer_.parameters().device());
  update_count_.add_(1 - found_inf.reshape({}));
  for (GroupRun const& run : buffer_.group_runs()) {
    auto const range = [&run](at::Tensor const& flat) { return flat.narrow(0, run.begin, run.end - run.begin); };
    at::Tensor parameters[] = {range(buffer_.parameters())};
    at::Tensor gradients[] = {range(buffer_.gradients())};
    at::Tensor averages[] = {range(exp_avg_)};
    at::Tensor squares[] = {range(exp_avg_sq_)};
    at::Tensor counts[] = {update_count_};
    at::_fused_adamw_(parameters, gradients, averages, squares, /*max_exp_avg_sqs=*/{}, counts, learning_rate,
                      options_.beta1, options_.beta2, options_.weight_decay[static_cast<std::size_t>(run.group)],
                      options_.eps, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, found_inf);
  }
}

at::Tensor clip_gradient_norm(FlatBuffer& buffer, double max_norm) {
  at::NoGradGuard no_grad;
  at::Tensor const gradients = buffer.gradients();
  std::vector<at::Tensor> norms;
  for (std::int64_t begin = 0; begin < gradients.numel(); begin += norm_chunk) {
    std::int64_t const length = std::min(norm_chunk, gradients.numel() - begin);
    norms.push_back(at::linalg_vector_norm(gradients.narrow(0, begin, length), 2, std::nullopt, false, at::kDouble));
  }
  at::Tensor const norm = norms.empty() ? at::zeros({}, gradients.options().dtype(at::kDouble))
                                        : at::linalg_vector_norm(at::stack(norms), 2);
  if (max_norm > 0) {
    gradients.mul_((max_norm / (norm + 1e-6)).clamp_max(1.0).to(at::kFloat));
  }
  return norm.to(at::kFloat);
}

}  // namespace duoflow::dist
