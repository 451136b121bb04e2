#include "launch/saver.h"

#include <fmt/format.h>

#include "dist/error.h"
#include "launch/logging.h"
#include "launch/step_record.h"

namespace duoflow::launch {
namespace {

dist::CheckpointWriterOptions writer_options(std::string const& directory, TrainingConfig const& config) {
  dist::CheckpointWriterOptions options;
  options.directory = directory;
  options.keep_last = config.keep_last;
  options.keep_every = config.keep_every;
  return options;
}

}  // namespace

Saver::Saver(dist::Communicator const& communicator, std::string const& directory, TrainingConfig const& config,
             bool pin_memory)
    : config_(config),
      directory_(directory),
      rank_(communicator.rank()),
      writer_(communicator, writer_options(directory, config), pin_memory) {}

void Saver::resumed_at(std::int64_t step) {
  newest_ = step;
}

void Saver::save(std::int64_t step, std::function<dist::CheckpointState()> const& state, bool last) {
  if (writer_.under_way() && (last || newest_ != step)) {
    if (!last && config_.checkpoint_busy == "drop") {
      if (rank_ == 0)
        log_warning(fmt::format("no checkpoint of step {}: that of step {} is still being written "
                                "(training.checkpoint_busy=wait waits for it)",
                                step, newest_));
      return;
    }
    settle(writer_.finish(), last);
  }
  if (newest_ == step) return;
  newest_ = step;
  writer_.begin(state(), last ? dist::SaveMemory::lent : dist::SaveMemory::copied);
  if (last || !config_.checkpoint_async) settle(writer_.finish(), last);
}

void Saver::watch(std::vector<double> const& statistics) {
  auto const outcome = writer_.take(
      {statistics[kSaveNumber], statistics[kSaveWritten], statistics[kSavePublished], statistics[kSaveFailed]});
  if (outcome) settle(*outcome, false);
}

void Saver::settle(dist::SaveOutcome const& outcome, bool last) {
  if (outcome.failure.empty()) {
    if (outcome.step == best_under_way_) mark_best(outcome.step);
    completed_.push_back(outcome);
    return;
  }
  if (newest_ == outcome.step) newest_ = -1;
  if (config_.checkpoint_failure == "stop" || last) throw dist::CheckpointError(outcome.failure);
  if (rank_ == 0)
    log_warning(outcome.failure + "; training goes on without it (training.checkpoint_failure=continue)");
}

void Saver::go_on(std::map<std::int64_t, double> const& scores) {
  if (rank_ != 0) return;
  if (config_.keep_best) find_best(scores);
  if (newest_ >= 0) dist::finish_interrupted_write(writer_options(directory_, config_), newest_);  // prunes: what is best is known
}

// Only what is still there can be the best: a kill may have come before its mark, or it was pruned while it had none.
void Saver::find_best(std::map<std::int64_t, double> const& scores) {
  std::int64_t best = -1;
  for (auto const& [step, score] : scores)
    if (dist::has_checkpoint(directory_, step) && score > best_score_) best = step, best_score_ = score;
  if (best >= 0 && best != dist::marked_best(directory_)) mark_best(best);
}

void Saver::measured(std::int64_t step, double score) {
  if (!config_.keep_best || !(score > best_score_) || newest_ != step) return;
  best_score_ = score;
  if (writer_.under_way())
    best_under_way_ = step;
  else
    mark_best(step);
}

// While nothing is written. A mark that cannot be made ends no run: the checkpoint is there.
void Saver::mark_best(std::int64_t step) {
  best_under_way_ = -1;
  if (rank_ != 0) return;
  try {
    dist::set_best_checkpoint(writer_options(directory_, config_), step);
  } catch (dist::CheckpointError const& error) {
    log_warning(error.what());
  }
}

}  // namespace duoflow::launch
