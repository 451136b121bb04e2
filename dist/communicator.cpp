#include "dist/communicator.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace duoflow::dist {
namespace {

void check_tensor(char const* collective, char const* role, at::Tensor const& tensor) {
  if (!tensor.defined()) {
    throw std::invalid_argument(fmt::format("{}: {} is an undefined tensor", collective, role));
  }
  if (tensor.layout() != at::kStrided || !tensor.is_contiguous()) {
    throw std::invalid_argument(
        fmt::format("{}: {} of shape {} is not contiguous (collectives work on plain memory), pass .contiguous()",
                    collective, role, fmt::join(tensor.sizes(), "x")));
  }
  switch (tensor.scalar_type()) {
    case at::kFloat:
    case at::kDouble:
    case at::kBFloat16:
    case at::kLong:
    case at::kByte:
      return;
    default:
      throw std::invalid_argument(
          fmt::format("{}: {} has type {} (reduced are Float, Double, BFloat16, Long and Byte), convert it", collective,
                      role, c10::toString(tensor.scalar_type())));
  }
}

// `large` holds size() pieces like `small`.
void check_pieces(char const* collective, Communicator const& communicator, at::Tensor const& output,
                  at::Tensor const& input, bool output_is_large) {
  check_tensor(collective, "the output", output);
  check_tensor(collective, "the input", input);
  if (output.scalar_type() != input.scalar_type() || output.device() != input.device()) {
    throw std::invalid_argument(fmt::format("{}: output is {} on {}, input {} on {} (they must be alike)", collective,
                                            c10::toString(output.scalar_type()), output.device().str(),
                                            c10::toString(input.scalar_type()), input.device().str()));
  }
  std::int64_t const large = output_is_large ? output.numel() : input.numel();
  std::int64_t const small = output_is_large ? input.numel() : output.numel();
  if (large != small * communicator.size()) {
    throw std::invalid_argument(fmt::format("{}: {} has {} elements, expected {} x {} ranks = {}", collective,
                                            output_is_large ? "the output" : "the input", large, small,
                                            communicator.size(), small * communicator.size()));
  }
}

// A collective of one rank: the output is the input.
Pending copy_alone(at::Tensor const& output, at::Tensor const& input) {
  at::NoGradGuard no_grad;
  output.view({-1}).copy_(input.view({-1}), /*non_blocking=*/true);
  return Pending();
}

}  // namespace

void Pending::wait() {
  if (work_) {
    work_->wait();
  }
}

Pending all_reduce(Communicator const& communicator, at::Tensor tensor, ReduceOp op) {
  check_tensor("all_reduce", "the tensor", tensor);
  if (communicator.transport() == nullptr) {
    return Pending();
  }
  return communicator.transport()->all_reduce(std::move(tensor), op);
}

Pending reduce_scatter(Communicator const& communicator, at::Tensor output, at::Tensor input) {
  check_pieces("reduce_scatter", communicator, output, input, /*output_is_large=*/false);
  if (communicator.transport() == nullptr) {
    return copy_alone(output, input);
  }
  return communicator.transport()->reduce_scatter(std::move(output), std::move(input));
}

Pending all_gather(Communicator const& communicator, at::Tensor output, at::Tensor input) {
  check_pieces("all_gather", communicator, output, input, /*output_is_large=*/true);
  if (communicator.transport() == nullptr) {
    return copy_alone(output, input);
  }
  return communicator.transport()->all_gather(std::move(output), std::move(input));
}

Pending all_to_all(Communicator const& communicator, at::Tensor output, at::Tensor input) {
  check_tensor("all_to_all", "the output", output);
  check_tensor("all_to_all", "the input", input);
  if (output.scalar_type() != input.scalar_type() || output.device() != input.device() ||
      output.numel() != input.numel() || input.numel() % communicator.size() != 0) {
    throw std::invalid_argument(
        fmt::format("all_to_all: output is {} x {} on {}, input {} x {} on {} (they must be alike, in {} equal pieces)",
                    output.numel(), c10::toString(output.scalar_type()), output.device().str(), input.numel(),
                    c10::toString(input.scalar_type()), input.device().str(), communicator.size()));
  }
  if (communicator.transport() == nullptr) {
    return copy_alone(output, input);
  }
  return communicator.transport()->all_to_all(std::move(output), std::move(input));
}

Pending broadcast(Communicator const& communicator, at::Tensor tensor, int root) {
  check_tensor("broadcast", "the tensor", tensor);
  if (root < 0 || root >= communicator.size()) {
    throw std::invalid_argument(
        fmt::format("broadcast: root {} is not a rank (the group has {} ranks)", root, communicator.size()));
  }
  if (communicator.transport() == nullptr) {
    return Pending();
  }
  return communicator.transport()->broadcast(std::move(tensor), root);
}

void barrier(Communicator const& communicator) {
  if (communicator.transport() != nullptr) {
    communicator.transport()->barrier();
  }
}

namespace {

thread_local std::array<char, 24> present_label{};

}  // namespace

CollectiveLabel::CollectiveLabel(std::string_view text) : outer_(present_label) {
  present_label.fill('\0');
  std::copy_n(text.data(), std::min(text.size(), present_label.size() - 1), present_label.data());
}

CollectiveLabel::CollectiveLabel(std::string_view text, std::size_t number) : outer_(present_label) {
  present_label.fill('\0');
  fmt::format_to_n(present_label.data(), present_label.size() - 1, "{} {}", text, number);
}

CollectiveLabel::~CollectiveLabel() { present_label = outer_; }
std::string_view CollectiveLabel::current() { return present_label.data(); }

std::vector<std::string> all_gather_strings(Communicator const& communicator, std::string const& mine) {
  if (communicator.transport() == nullptr) {
    return {mine};
  }
  // NCCL only moves device memory; the strings are small, so where they travel does not matter otherwise.
  at::Device const device(communicator.transport()->moves_host_memory() ? at::kCPU : at::kCUDA);
  at::Tensor const length = at::full({1}, static_cast<std::int64_t>(mine.size()), at::kLong);
  at::Tensor lengths = at::empty({communicator.size()}, at::TensorOptions(at::kLong).device(device));
  all_gather(communicator, lengths, length.to(device)).wait();
  lengths = lengths.cpu();  // strings are for start-up and checkpoints, never the step path: the host may wait
  std::int64_t const longest = lengths.max().item<std::int64_t>();

  at::Tensor padded = at::zeros({longest}, at::kByte);
  std::memcpy(padded.data_ptr(), mine.data(), mine.size());
  at::Tensor all = at::empty({communicator.size() * longest}, at::TensorOptions(at::kByte).device(device));
  all_gather(communicator, all, padded.to(device)).wait();
  all = all.cpu();

  std::vector<std::string> strings;
  for (int rank = 0; rank < communicator.size(); ++rank) {
    auto const* begin = static_cast<char const*>(all.data_ptr()) + rank * longest;
    strings.emplace_back(begin, static_cast<std::size_t>(lengths[rank].item<std::int64_t>()));
  }
  return strings;
}

}  // namespace duoflow::dist
