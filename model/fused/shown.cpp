#include "model/fused/shown.h"

namespace duoflow::model {
namespace {

std::vector<c10::IValue> values(std::vector<at::Tensor> const& tensors) {
  std::vector<c10::IValue> defined;
  for (at::Tensor const& tensor : tensors)
    if (tensor.defined()) defined.emplace_back(tensor);
  return defined;
}

}  // namespace

void Shown::begin(std::string_view name, at::StepCallbacks watchers, Moves const& moves) {
  record_.emplace(std::move(watchers));
  auto const read = values(moves.read);  // watchers look at them before `before` returns
  if (record_->needsInputs()) record_->before(name, &read);
  else record_->before(name);
  if (record_->needsOutputs()) record_->setOutputs(values(moves.written));
}

}  // namespace duoflow::model
