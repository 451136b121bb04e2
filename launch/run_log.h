#pragma once
// RunLog: the run folder's text and curves (config.yaml, log.txt, metrics.jsonl, TensorBoard events, images/) and the
// progress line. Rank 0 writes; on other ranks every call does nothing.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/checkpoint/background_writer.h"
#include "launch/config.h"
#include "launch/step_record.h"
#include "launch/training_data.h"
#include "launch/validation.h"

namespace duoflow::launch {

class RunLog {
 public:
  // Lines beyond `step` (the checkpoint resumed from) are dropped from metrics.jsonl first.
  RunLog(std::string const& run, Config const& config, int rank, LineOptions const& line, std::int64_t step);
  ~RunLog();

  void start(std::uint64_t samples, std::int64_t global_batch, std::int64_t parameters, std::string const& device);
  // `next`: the statistics sent after this step. Writes on every print_every-th step, and on skipped ones.
  void step(StepNumbers const& numbers, std::vector<double> const& next);
  // Names the samples: of the first micro-step with a loss that is not finite, or of the whole step when it is the
  // gradient.
  void skipped(StepNumbers const& numbers);
  void pictures(std::int64_t step, at::Tensor const& image_BT3HW, at::Tensor const& target_BT3HW);
  void checkpoint(dist::SaveOutcome const& outcome);  // it is complete
  // A measurement on held-out pairs: a line of RUN/evaluation.jsonl.
  void evaluation(std::int64_t step, Validation::Score const& score);
  // Step and score of its lines up to the step that the run goes on from.
  std::map<std::int64_t, double> evaluations() const;
  // Rank 0's mean step split ("": none) over so many steps; the peak resident memory of the rank that took most; which
  // of the ranks (on these hosts) the others wait for.
  void cost(std::string const& split, std::int64_t steps, double peak_mib, std::vector<std::string> const& hosts);
  void finish(std::string const& how);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace duoflow::launch
