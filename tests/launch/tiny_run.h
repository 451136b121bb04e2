#pragma once
// One rank of a joint run on a model of a few thousand numbers: the trainer's own Update, writing down what happens
// when. Data are a function of the sample's position in the global batch, so any split of it is the same step.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "launch/captured_update.h"
#include "launch/update.h"

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
  int zero = 0;
  bool reproducible = false;  // with as many virtual shards as ranks x micro-steps
  std::string statistics = "current";
  bool recompute = false;        // every block again in the backward
  bool bf16 = false;             // gradients travel in bf16
  std::int64_t warmup = 0;       // of the learning rate, which is constant then
  bool image_terms = false;      // every term of the render loss, with a gate in t and a crop
  double ema = 0;                // decay of the average, which warms up
  std::int64_t view_chunk = 0;   // the batch has two views
  double clip = 1, allowed = 0;  // grad_clip_norm, allowed_gradnorm_factor
  std::vector<std::string> freeze{}, lr_scale{};
  std::string weighting = "normalized", gradient_space = "v_pred";
  std::int64_t gradient_interval = 2;
};

model::ModelOptions tiny_options();
model::SceneModel tiny_model(bool train_renderer, at::Device device = at::kCPU,
                             bool recompute = false);  // no weight is zero, so every gradient is non-zero
Config tiny_config(TinyShape const& shape, int size);  // weighting with a state (EMA) where it takes one; clips
model::JointBatch tiny_batch(std::int64_t samples, std::int64_t update = 0,
                             at::Device device = at::kCPU);  // other numbers in every update

// The two losses of the whole batch, written down directly: one graph from the parameters to both, or, where the render
// loss does not see v, two.
struct WholeBatchLosses {
  at::Tensor velocity, render;  // means
  at::Tensor v;                 // [B,n,d], with its graph
};
WholeBatchLosses whole_batch_losses(model::SceneModel const& model, model::JointBatch const& batch,
                                    bool render_sees_v = true);

class TinyRun : private StepSource {
 public:
  // first_step: of a run that goes on from a checkpoint, whose state the caller restores.
  TinyRun(dist::Communicator const& communicator, TinyShape const& shape, std::int64_t first_step = 0);
  // One update on this rank's part of the global batch. Returns whether it was skipped.
  bool update(model::JointBatch const& global_batch);
  // The same without asking the device: the flag stays there. The batch lies on the run's device.
  at::Tensor launch_update(model::JointBatch const& global_batch);

  // From here on updates run through a CapturedUpdate, on the stream that is current now and was at construction.
  void capture_with(CapturedUpdate::MakeGraph make_graph, bool alone = true);

  // What a checkpoint does before it is written: the weighting learns what the last update has measured. Collective.
  void settle() { update_.drain(flags()); }

  BatchPlan const& plan() const { return plan_; }
  dist::FlatBuffer& buffer() { return update_.buffer(); }
  dist::GradientReducer& reducer() { return update_.reducer(); }
  dist::ShardedAdamW& optimizer() { return update_.optimizer(); }
  model::Weighting& weighting() { return update_.weighting(); }
  model::SceneModel& model() { return model_; }
  model::LossWeights const& weights() const { return result_.weights; }  // of the last update
  at::Tensor rate() const { return result_.rate; }                       // of the last update
  at::Tensor norm() const { return result_.norm; }                       // of the last update, before clipping
  at::Tensor target() const { return result_.target; }                   // of the last update's last micro-step
  at::Tensor gradients() const { return gradients_; }                    // of the last update, reduced, before clipping
  at::Tensor statistics() const { return statistics_; }                  // of the last update, reduced
  Events& events() { return *events_; }                                  // since construction, or since cleared
  std::vector<std::string> const& said() const { return said_; }         // by the CapturedUpdate

 private:
  void watch_gradients();
  MicroBatch joint(std::int64_t k) override;
  ReconstructionMicroBatch reconstruction(std::int64_t) override { return {}; }
  at::Tensor flags() override { return flag_slots({}, communicator_, device_); }
  void lap(Stage stage, double waited_ms) override;

  std::shared_ptr<Events> events_ = std::make_shared<Events>();
  dist::Communicator communicator_;
  Config config_;
  at::Device device_;
  BatchPlan plan_;
  model::SceneModel model_;
  Update update_;
  std::optional<CapturedUpdate> captured_;
  std::vector<std::string> said_;
  model::JointBatch const* batch_ = nullptr;
  std::int64_t step_ = 0, halves_ = 0, waits_ = 0;
  at::Tensor gradients_, statistics_;
  Update::Result result_;
};

}  // namespace duoflow::launch
