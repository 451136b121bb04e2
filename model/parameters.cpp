#include "model/parameters.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "model/flow/random.h"

namespace duoflow::model {

Initial Initial::fan_in(std::int64_t inputs) { return {Kind::uniform, 1.0 / std::sqrt(static_cast<double>(inputs))}; }

Slot matrix_slot(std::string name, Matrix& matrix, std::vector<std::int64_t> shape, Initial initial, Part part) {
  return {std::move(name), &matrix.master, std::move(shape), initial, part, true, &matrix};
}

at::Tensor initial_value(Slot const& slot, std::uint64_t seed, std::uint64_t index) {
  switch (slot.initial.kind) {
    case Initial::Kind::zero: return at::zeros(slot.shape, at::kFloat);
    case Initial::Kind::one: return at::ones(slot.shape, at::kFloat);
    case Initial::Kind::normal: return normal_tensor(slot.shape, seed, index, Stream::initialisation).mul_(slot.initial.scale);
    case Initial::Kind::uniform: break;
  }
  at::Tensor value = at::empty(slot.shape, at::kFloat);
  auto* const out = value.mutable_data_ptr<float>();
  auto const count = static_cast<std::uint64_t>(value.numel());
  for (std::uint64_t i = 0; i < count; ++i) {
    out[i] = static_cast<float>(slot.initial.scale * (2 * uniform01(seed, index, Stream::initialisation, i) - 1));
  }
  return value;
}

}  // namespace duoflow::model
