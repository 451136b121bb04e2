#pragma once
// Saver: when a run writes checkpoints, and what happens when one is late or fails (training.checkpoint_*).

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dist/checkpoint/background_writer.h"
#include "launch/config.h"

namespace duoflow::launch {

class Saver {
 public:
  // Collective. directory: RUN/checkpoints.
  Saver(dist::Communicator const& communicator, std::string const& directory, TrainingConfig const& config,
        bool pin_memory);

  // The step that the run goes on from has its checkpoint in `directory` already.
  void resumed_at(std::int64_t step);

  // The state of this step to disk, unless it is there. Collective. Without `last` it is only begun where
  // checkpoint_async is on; with `last` it and what was under way are complete when this returns. Throws
  // CheckpointError, the same on all ranks, for one that failed, unless training.checkpoint_failure is continue (the
  // last one of a run always throws).
  void save(std::int64_t step, std::function<dist::CheckpointState()> const& state, bool last);

  dist::SaveReport report() const { return writer_.report(); }
  // Reduced statistics of a step, the same on all ranks; throws as save().
  void watch(std::vector<double> const& statistics);

  // The measurement of a step whose checkpoint is there or under way: the best one's is kept (training.keep_best).
  void measured(std::int64_t step, double score);
  // Before the first step, with the measurements of the steps before a resume (rank 0's; the others have none): what a killed
  // process has left to do is done, `best` included. Throws CheckpointError.
  void go_on(std::map<std::int64_t, double> const& scores);

  // What has become complete since the last call.
  std::vector<dist::SaveOutcome> take_completed() { return std::exchange(completed_, {}); }

 private:
  void settle(dist::SaveOutcome const& outcome, bool last);
  void find_best(std::map<std::int64_t, double> const& scores);
  void mark_best(std::int64_t step);

  TrainingConfig const& config_;
  std::string directory_;
  int rank_;
  dist::BackgroundWriter writer_;
  std::int64_t newest_ = -1;  // begun or complete
  double best_score_ = -std::numeric_limits<double>::infinity();
  std::int64_t best_under_way_ = -1;
  std::vector<dist::SaveOutcome> completed_;
};

}  // namespace duoflow::launch
