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
    : config_(config), rank_(communicator.rank()), writer_(communicator, writer_options(directory, config), pin_memory) {}

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
    completed_.push_back(outcome);
    return;
  }
  if (newest_ == outcome.step) newest_ = -1;
  if (config_.checkpoint_failure == "stop" || last) throw dist::CheckpointError(outcome.failure);
  if (rank_ == 0)
    log_warning(outcome.failure + "; training goes on without it (training.checkpoint_failure=continue)");
}

}  // namespace duoflow::launch
