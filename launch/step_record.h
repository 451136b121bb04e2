#pragma once
// StepRecords: what a step measured, from the device to the log without a host synchronisation on the step path.
//
// A step's numbers are copied to (pinned) host memory when the step is launched and read when the next one has been
// launched. Values that are known only after the statistics of a step were sent (gradient norms at v_pred, times)
// travel in the next step's statistics; the line of step s is therefore complete one step later, or at drain().

#include <array>
#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <nlohmann/json.hpp>

#include "model/joint_step.h"

namespace duoflow::launch {

// Slots that the launcher appends to the model's statistics; the last kPerRank x size ones are one quadruple per rank.
enum LaunchSlot : int {
  kStop = model::kStatisticCount,
  kTimeUp,
  kSaveNumber,  // the fields of dist::SaveReport
  kSaveWritten,
  kSavePublished,
  kSaveFailed,
  kFirstPerRank
};
enum PerRankSlot : int { kStepMs, kDataWaitMs, kCommWaitMs, kFirstBadPosition, kPerRank };  // position + 1; 0: none
inline std::int64_t statistic_slots(int size) { return kFirstPerRank + kPerRank * size; }

// After the reduced statistics: numbers that are the same on every rank by construction.
enum OwnSlot : int { kVelocityWeight, kRenderWeight, kGradNorm, kLearningRate, kSkipped, kOwnCount };

struct StepNumbers {
  std::int64_t step = 0, samples = 0;
  std::vector<double> statistics;  // reduced, statistic_slots(size)
  std::array<double, kOwnCount> own{};
  double comm_wait_ms = 0;
};

class StepRecords {
 public:
  StepRecords(int size, at::Device device);
  // statistics: reduced vector; own: fp64 [kOwnCount]. Starts the copy of both.
  void push(std::int64_t step, std::int64_t samples, at::Tensor const& statistics, at::Tensor const& own,
            double comm_wait_ms);
  // The numbers of the step pushed before the latest one (or of the latest, `latest` = true); nothing if there is none
  // unread.
  std::optional<StepNumbers> take(bool latest);

 private:
  struct Slot {
    at::Tensor host;
    std::optional<c10::Event> event;
    StepNumbers numbers;
    bool unread = false;
  };
  at::Device device_;
  std::int64_t statistics_;
  std::array<Slot, 2> slots_;
  std::int64_t pushed_ = 0;
};

struct LineOptions {
  double lambda_v = 1, lambda_r = 1;
  int size = 1;
  bool joint = true;
  bool lpips = false, perceptual = false;  // have a weight in the render loss
};
// How the two losses of a joint step share it. NaN: a loss that was not computed has no number.
struct LossBalance {
  double velocity_loss = 0, render_loss = 0;  // global means, unweighted
  double weighted_velocity = 0, total = 0;    // of the objective
  double raw_share = 0;                       // lambda_v L_v of lambda_v L_v + lambda_r L_r: without the weighting's w
  double grad_ratio = 0, grad_cosine = 0;     // render over velocity, weighted, at v_pred
};
// Arguments as of metrics_line.
LossBalance loss_balance(StepNumbers const& numbers, std::vector<double> const& next, LineOptions const& options);

// One object of metrics.jsonl. `next`: the statistics sent after this step (gradient norms at v_pred and times of this
// step).
nlohmann::ordered_json metrics_line(StepNumbers const& numbers, std::vector<double> const& next,
                                    LineOptions const& options);

}  // namespace duoflow::launch
