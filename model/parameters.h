#pragma once
// How a parameter comes to be. A Slot declares a state-dict key with its shape and first values; the order of the slots is
// the order of SceneModel::parameters() and numbers the random streams.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/matrix.h"
#include "model/scene_model.h"

namespace duoflow::model {

struct Initial {
  enum class Kind { zero, one, normal, uniform };
  Kind kind = Kind::zero;
  double scale = 0;  // normal: standard deviation; uniform: half width

  static Initial zero() { return {Kind::zero, 0}; }
  static Initial one() { return {Kind::one, 0}; }
  static Initial normal(double std) { return {Kind::normal, std}; }
  // torch.nn.Linear's own: U(+-1/sqrt(fan_in)), weights and biases alike.
  static Initial fan_in(std::int64_t inputs);
};

struct Slot {
  std::string name;
  at::Tensor* tensor;  // where the parameter lives; stays valid as long as the model
  std::vector<std::int64_t> shape;
  Initial initial;
  Part part;
  bool trainable = true;  // false: a buffer
  Matrix* matrix = nullptr;  // whose master it is
};
Slot matrix_slot(std::string name, Matrix& matrix, std::vector<std::int64_t> shape, Initial initial, Part part);
using Slots = std::vector<Slot>;

// fp32 on the CPU, a function of (seed, index) and the slot's shape and Initial alone.
at::Tensor initial_value(Slot const& slot, std::uint64_t seed, std::uint64_t index);

}  // namespace duoflow::model
