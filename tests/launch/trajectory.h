#pragma once
// What a few updates of a TinyRun leave behind, and how near two such records have to be.

#include <vector>

#include <ATen/core/Tensor.h>

#include "tests/launch/tiny_run.h"

namespace duoflow::launch {

// fp32 sums in another order, and what a few updates make of them (TinyRun's eps keeps a rounding from becoming a
// step). Seen over all cells, with AVX-512: gradients 6.6e-6, parameters 7.1e-7, loss weights 7.8e-8. Loosen one only
// for a kernel that adds in yet another order.
inline constexpr double kGradientTolerance = 5e-5;    // of the largest element
inline constexpr double kParameterTolerance = 1e-5;   // absolute; an update moves a parameter by up to 1e-2
inline constexpr double kLossWeightTolerance = 2e-6;  // relative

// After or in each update; tensors without the padding, which depends on the layout.
struct Trajectory {
  std::vector<at::Tensor> gradients, parameters;
  std::vector<double> velocity_weights, render_weights;

  std::size_t size() const { return gradients.size(); }
  void note_update(TinyRun& run);  // collective with ZeRO-1
};

at::Tensor unpadded(dist::FlatBuffer const& buffer, at::Tensor const& flat);

// Update i of `found` is update first + i of `expected`.
void expect_close(Trajectory const& found, Trajectory const& expected, std::size_t first = 0);
void expect_same_bits(Trajectory const& found, Trajectory const& expected, std::size_t first = 0);
// The last gradient and the last weights of `found`, against the objective's.
void expect_objective(Trajectory const& found, at::Tensor const& gradient, double velocity_weight,
                      double render_weight);

}  // namespace duoflow::launch
