#include "tests/launch/operator_graph.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

namespace duoflow::launch {
namespace {

// A key below autograd that LibTorch itself has no kernels for.
constexpr auto kKey = c10::DispatchKey::Fake;

OperatorGraph* under_way = nullptr;

void for_each_tensor(c10::IValue const& value, std::function<void(at::Tensor const&)> const& action) {
  if (value.isTensor() && value.toTensor().defined()) action(value.toTensor());
  if (value.isTensorList())
    for (at::Tensor const& tensor : value.toTensorVector())
      if (tensor.defined()) action(tensor);
  if (value.isOptionalTensorList())
    for (std::optional<at::Tensor> const tensor : value.toOptionalTensorList())
      if (tensor && tensor->defined()) action(*tensor);
}

bool share_memory(c10::IValue const& value, std::vector<c10::IValue> const& arguments) {
  bool shares = false;
  for_each_tensor(value, [&](at::Tensor const& made) {
    for (auto const& argument : arguments)
      for_each_tensor(argument, [&](at::Tensor const& given) { shares = shares || made.is_alias_of(given); });
  });
  return shares;
}

TORCH_LIBRARY_IMPL(_, Fake, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&OperatorGraph::note>()); }

}  // namespace

void OperatorGraph::note(c10::OperatorHandle const& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  auto const& schema = op.schema();
  auto const count = static_cast<std::ptrdiff_t>(schema.arguments().size());
  std::vector<c10::IValue> arguments(stack->end() - count, stack->end());
  if (under_way->noted_++ == under_way->fails_at_) throw std::runtime_error("a device that records no more");
  if (schema.name() == "aten::_local_scalar_dense" || schema.name() == "aten::is_nonzero")
    throw std::runtime_error("a number of the device was asked for in a capture");
  under_way->keep_before(op, arguments);
  {
    c10::impl::ExcludeDispatchKeyGuard const inner(kKey);
    op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kKey), stack);
  }
  std::vector<c10::IValue> results(stack->end() - static_cast<std::ptrdiff_t>(schema.returns().size()), stack->end());
  for (auto& result : results)
    if (share_memory(result, arguments)) result = {};
  under_way->calls_.push_back({op, std::move(arguments), std::move(results)});
}

void OperatorGraph::keep_before(c10::OperatorHandle const& op, std::vector<c10::IValue> const& arguments) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    auto const* const alias = op.schema().arguments()[i].alias_info();
    if (alias == nullptr || !alias->isWrite()) continue;
    for_each_tensor(arguments[i], [&](at::Tensor const& written) {
      auto const& storage = written.storage();
      bool const known =
          std::any_of(before_.begin(), before_.end(), [&](auto const& b) { return b.storage.is_alias_of(storage); });
      if (known) return;
      auto const* const bytes = static_cast<char const*>(storage.data());
      before_.push_back({storage, {bytes, bytes + storage.nbytes()}});
    });
  }
}

void OperatorGraph::take_back() {
  for (auto& [storage, bytes] : before_) std::memcpy(storage.mutable_data(), bytes.data(), bytes.size());
  before_.clear();
}

void OperatorGraph::capture(std::function<void()> const& work) {
  under_way = this;
  try {
    c10::impl::IncludeDispatchKeyGuard const recording(kKey);
    work();
  } catch (...) {
    take_back();
    throw;
  }
  take_back();
}

void OperatorGraph::replay() {
  at::AutoDispatchBelowADInplaceOrView const no_graph;
  for (auto const& call : calls_) {
    torch::jit::Stack stack(call.arguments);
    call.op.callBoxed(stack);
    for (std::size_t i = 0; i < call.results.size(); ++i) {
      std::vector<at::Tensor> into, from;
      for_each_tensor(call.results[i], [&](at::Tensor const& tensor) { into.push_back(tensor); });
      if (into.empty()) continue;
      for_each_tensor(stack[i], [&](at::Tensor const& tensor) { from.push_back(tensor); });
      for (std::size_t j = 0; j < into.size(); ++j) into[j].copy_(from[j]);
    }
  }
}

}  // namespace duoflow::launch
