#pragma once
// One rank of a joint run on a model of a few thousand numbers, put together as launch/trainer.cpp does and writing
// down what happens when. Data are a function of the sample's position in the global batch, so any split of it is the
// same step.

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/flat_buffer.h"
#include "dist/gradient_norm.h"
#include "dist/gradient_reducer.h"
#include "dist/sharded_adamw.h"
#include "dist/statistics.h"
#include "launch/training_data.h"
#include "model/joint_step.h"

namespace duoflow::launch {

using Events = std::vector<std::string>;
inline constexpr char const* kStatisticsStarted = "statistics started";
inline constexpr char const* kStatisticsAwaited = "statistics awaited";
inline constexpr char const* kBucketStarted = "bucket started";
inline constexpr char const* kForwardDone = "forward done";  // of a micro-step, down to both losses
inline constexpr char const* kCutReached = "cut reached";    // of a micro-step: g_velocity and g_render are there
inline constexpr char const* kRendererGradient = "renderer gradient";
inline constexpr char const* kEditorGradient = "editor gradient";

// The group as `inner` sees it, with every all-reduce's start and wait written to *events (fp64: statistics, fp32: a
// bucket).
dist::Communicator traced(dist::Communicator const& inner, std::shared_ptr<Events> events);

struct TinyShape {
  std::int64_t global_batch = 4, micro_steps = 1;  // the rank with most samples makes this many micro-steps
  bool train_renderer = true;
  at::Device device{at::kCPU};
};

model::ModelOptions tiny_options();
model::SceneModel tiny_model(bool train_renderer,
                             at::Device device = at::kCPU);  // no weight is zero, so every gradient is non-zero
model::WeightingOptions tiny_weighting();                    // normalized, with a state (EMA)
model::JointLossOptions tiny_losses();
model::JointBatch tiny_batch(std::int64_t samples, std::int64_t update = 0,
                             at::Device device = at::kCPU);  // other numbers in every update

class TinyRun {
 public:
  TinyRun(dist::Communicator const& communicator, TinyShape const& shape);
  // One update on this rank's part of the global batch. Returns whether it was skipped.
  bool update(model::JointBatch const& global_batch);
  // The same without asking the device: the flag stays there. The batch lies on the run's device.
  at::Tensor launch_update(model::JointBatch const& global_batch);

  BatchPlan const& plan() const { return plan_; }
  dist::FlatBuffer& buffer() { return buffer_; }
  dist::GradientReducer& reducer() { return reducer_; }
  dist::ShardedAdamW& optimizer() { return optimizer_; }
  model::Weighting& weighting() { return *weighting_; }
  model::SceneModel& model() { return model_; }
  model::LossWeights const& weights() const { return weights_; }  // of the last update
  at::Tensor gradients() const { return gradients_; }             // of the last update, reduced, before clipping
  at::Tensor statistics() const { return statistics_; }           // of the last update, reduced
  Events& events() { return *events_; }                           // since construction, or since cleared

 private:
  void watch_gradients();
  void micro_steps(model::JointBatch const& global_batch);

  std::shared_ptr<Events> events_ = std::make_shared<Events>();
  dist::Communicator communicator_;
  BatchPlan plan_;
  bool train_renderer_;
  at::Device device_;
  model::SceneModel model_;
  dist::FlatBuffer buffer_;
  dist::GradientReducer reducer_;
  dist::GradientNorm gradient_norm_;
  dist::ShardedAdamW optimizer_;
  std::unique_ptr<model::Weighting> weighting_;
  model::JointStep joint_step_;
  dist::StatisticsExchange exchange_;
  std::int64_t step_ = 0;
  at::Tensor gradients_, statistics_, cut_sums_;
  model::LossWeights weights_;
};

}  // namespace duoflow::launch
