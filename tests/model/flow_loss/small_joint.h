#pragma once
// The small model with its golden weights (nothing zero, so every gradient is non-zero) and one batch for it. The
// reconstructor is frozen; gradients start as zeros, as in a flat buffer.

#include "model/joint_step.h"
#include "tests/model/small_model.h"

namespace duoflow::model {

inline constexpr double kRounding = 1e-6;  // relative, per parameter: two orders of the same fp32 sums. Not to be loosened

namespace test {

inline JointLossOptions lambdas(double v, double r) {
  JointLossOptions options;
  options.lambda_v = v, options.lambda_r = r;
  return options;
}

inline WeightingOptions named(std::string const& name) {
  WeightingOptions options;
  options.name = name;
  return options;
}

}  // namespace test

struct SmallJoint {
  SmallJoint();
  SceneModel model;
  JointBatch batch;
  ReconstructionBatch reconstruction;

  void clear_gradients();           // defined and zero for every trainable parameter
  test::Tensors gradients() const;  // clones, by parameter name
  test::Tensors gradients(Part part) const;
};

// Both losses on one plain graph, or, where the render loss does not see v_pred, on two.
struct PlainLosses {
  at::Tensor v_pred, velocity, render;  // [B,n,d]; means over the batch
};
PlainLosses plain_forward(SceneModel const& model, JointBatch const& batch, bool render_sees_v = true);
// One backward() of velocity_factor L_v + render_factor L_r.
test::Tensors plain_gradients(SmallJoint& small, double velocity_factor, double render_factor,
                              bool render_sees_v = true);

// Samples [begin, end) of the batch.
JointBatch part_of(JointBatch const& batch, std::int64_t begin, std::int64_t end);

// run_to_cut, combine, run_from_cut on one batch that is the whole step.
struct StepResult {
  AtCut at_cut;
  at::Tensor sums, cut_sums;
  LossWeights weights;
};
StepResult run_whole_step(SmallJoint& small, JointLossOptions const& losses, WeightingOptions const& weighting,
                          bool keep_graph, std::int64_t step = 0);

// Largest |difference| / |expected| of any parameter (2-norms in fp64; |difference| where nothing is expected). Fails
// the test for a name that only one side has and for a gradient that is not finite.
double largest_distance(test::Tensors const& gradients, test::Tensors const& expected);

}  // namespace duoflow::model
