#pragma once
// Evaluator: how well the edit matches the target, beside answers that cost no editing, on pair shards.
//
//   (none)           x0 moved to the pair's light, rendered
//   no_edit_         x0 rendered as it is
//   oracle_          x1 rendered
//   shuffled_light_  x0 moved to another pair's light, rendered, against this pair's target
//   mean_light_      the mean of the renders of this object's latents over the lights of --train-data: the best
//   light-blind answer
// Each metric is the mean over pairs of the mean over target views of the picture's; _masked counts pixels with alpha >
// 0.5 only. SSIM: model/metrics.h. LPIPS: VGG16, where its weights are (launch/loss_weights.h), else null.

#include <string>
#include <vector>

#include "dist/communicator.h"
#include "launch/editing.h"
#include "launch/model_setup.h"

namespace duoflow::launch {

struct EvaluateOptions {
  std::string data, out, train_data;
  EditRequest edit;
  std::int64_t batch = 8, sheet_rows = 8;
  // Every one of the solvers (or the stochastic one, where it is asked for) with every number of steps, on top: how
  // many steps are worth their time. Empty: none.
  std::vector<std::int64_t> sweep_steps;
  std::vector<std::string> sweep_solvers;  // empty: the solver above
};

// Writes OUT/{metrics.json,settings.json,pairs.csv,contact_sheet.png}, and of a sweep sweep.csv, on rank 0. Pairs are divided over
// the ranks; the result does not depend on how many there are. Collective.
void evaluate(dist::Communicator const& communicator, LoadedModel const& loaded, EvaluateOptions const& options);

}  // namespace duoflow::launch
