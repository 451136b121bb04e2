#pragma once
// Shown: an operator of our own for those who watch operators (`train --profile`, its trace). ATen's show themselves where
// they are dispatched; loops and kernels of ours would not be seen. While nobody watches it asks whether anybody does, and
// that is all.

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>

namespace duoflow::model {

// What the operator reads and writes, an element each once; undefined tensors are left out. What it also does by ATen's
// operators (sums over what its blocks made) shows itself.
struct Moves {
  std::vector<at::Tensor> read, written;
};

class Shown {
 public:
  // From here to its end. moves(): Moves, called if somebody watches. `name` outlives all who watch.
  template <class Function>
  Shown(std::string_view name, Function const& moves) {
    if (auto watchers = at::getStepCallbacksUnlessEmpty(at::RecordScope::FUNCTION)) begin(name, std::move(*watchers), moves());
  }
  Shown(Shown const&) = delete;

 private:
  void begin(std::string_view name, at::StepCallbacks watchers, Moves const& moves);
  std::optional<at::RecordFunction> record_;
};

}  // namespace duoflow::model
