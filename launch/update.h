#pragma once
// Update: one parameter update on this rank, from the micro-steps to AdamW, and everything that lives on the device for
// it (DESIGN section 2). The host only launches work here: it waits for no device, and whether an update is skipped is
// decided on the device from reduced values. Knows no file, no log and no signal: what it needs comes through
// StepSource.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dist/flat_buffer.h"
#include "dist/gradient_norm.h"
#include "dist/gradient_reducer.h"
#include "dist/sharded_adamw.h"
#include "launch/config.h"
#include "launch/editor_gradients.h"
#include "launch/schedule.h"
#include "launch/step_statistics.h"
#include "launch/step_times.h"
#include "launch/training_data.h"
#include "model/joint_step.h"

namespace duoflow::launch {

// A micro-step's batch, and sample_number of its first sample.
using MicroBatch = std::pair<model::JointBatch, at::Tensor>;
using ReconstructionMicroBatch = std::pair<model::ReconstructionBatch, at::Tensor>;

// What an update asks for while it runs, on every rank in the same order.
class StepSource {
 public:
  virtual ~StepSource() = default;
  virtual MicroBatch joint(std::int64_t k) = 0;  // of micro-step k
  virtual ReconstructionMicroBatch reconstruction(std::int64_t k) = 0;
  virtual at::Tensor flags() = 0;  // what rides along with the statistics: flag_slots
  // A stage has been launched (on CUDA), or is done; of the time since the last lap, how long was waited for others.
  virtual void lap(Stage, double /*waited_ms*/ = 0) {}
};

class Update {
 public:
  // `model` must outlive this; its trainable parts are marked. `networks`: what the config's render loss needs, on
  // `device`. Collective: all ranks call with the same config.
  Update(dist::Communicator const& communicator, model::SceneModel& model, Config const& config, BatchPlan const& plan,
         at::Device device, double adam_eps = 1e-8, model::LossNetworks const& networks = {});

  struct Result {
    model::LossWeights weights;
    at::Tensor statistics;           // reduced, [statistic_slots(size)]
    at::Tensor norm, rate, skipped;  // fp32, fp32, bool scalars; norm before clipping
    at::Tensor picture, target;      // the last micro-step's; picture undefined when nothing was rendered
  };
  // Collective. `step`: number of the update, from 0.
  Result run(std::int64_t step, StepSource& source);
  // After an exception in run() of which nothing has been executed (a capture that failed): the next run() begins anew.
  void abandon();
  // The parameters may be read behind this: ZeRO-1 brings them back beside whatever follows an update.
  void wait_for_parameters() { optimizer_.wait_for_parameters(); }
  // One exchange more, for what the last step measured at the cut and its times; on the host. Collective; not the step
  // path. The weighting has then learned from the last step whatever it will, as a checkpoint needs it; a run that goes
  // on is not changed by it.
  std::vector<double> drain(at::Tensor const& flags);

  dist::FlatBuffer& buffer() { return buffer_; }
  dist::GradientReducer& reducer() { return reducer_; }
  dist::ShardedAdamW& optimizer() { return optimizer_; }
  model::Weighting& weighting() { return *weighting_; }
  void set_schedule_ahead(std::int64_t steps) { schedule_.ahead = steps; }

 private:
  struct Used {
    std::set<std::string> all, to_cut, behind_cut;
  };
  Used const& used_parameters(std::int64_t step);
  Used find_used(bool renders) const;
  model::LossWeights joint_micro_steps(std::int64_t step, StepSource& source);
  std::vector<MicroBatch> velocity_alone(Used const& used, StepSource& source);
  model::LossWeights reconstruction_micro_steps(StepSource& source);
  void round_weights();
  void await_statistics();
  void contribute(std::int64_t k, at::Tensor const& sums, at::Tensor const& first_sample, StepSource& source);
  void shard_done(std::int64_t k, std::set<std::string> const& names);
  std::int64_t shard_of(std::int64_t k) const;
  void observe_cut();
  void observe_now(std::vector<model::AtCut> const& cuts);
  void keep_for_observing();
  void finish_gradients();
  void keep_weighting();
  at::Tensor apply(dist::GradientNorm::Measured const& measured, at::Tensor const& rate);

  model::SceneModel& model_;
  Config config_;
  BatchPlan plan_;
  dist::Communicator shared_over_;  // ZeRO-1: the ranks that share the update; else null
  dist::FlatBuffer buffer_;
  dist::GradientReducer reducer_;
  dist::GradientNorm gradient_norm_;
  dist::ShardedAdamW optimizer_;
  std::unique_ptr<model::Weighting> weighting_;
  model::JointStep joint_step_;
  std::map<std::string, at::Tensor> rounded_;  // the optimizer's, by parameter; none with fp32 products
  model::RenderLoss render_loss_;
  StepStatistics statistics_;
  ScheduleOptions schedule_;

  std::array<std::optional<Used>, 2> used_;          // when L_r is not computed and when it is, once needed
  Used const* used_now_ = nullptr;                   // by the step under way
  std::vector<at::Tensor> weighting_before_;         // put back when the update is skipped
  std::vector<at::Tensor> renderer_gradients_;       // of what this rank owns: its ranges
  bool render_weight_is_late_ = false;               // in the step under way: not inside these yet
  std::optional<EditorGradients> editor_gradients_;  // for a weighting that balances over parameters
  bool measures_ = false;                            // in the step under way
  model::LossWeights observed_weights_;              // the last step's, for observe_cut; undefined before the first
  at::Tensor observed_applied_;                      // and whether it was not skipped
  Result result_;
};

}  // namespace duoflow::launch
