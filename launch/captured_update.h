#pragma once
// CapturedUpdate: an Update that is recorded once and replayed (training.cuda_graph). The host then launches a step in
// one call instead of one for each of its kernels.
//
// The first kWarmUpSteps steps run as ever: whatever is made on first use (libraries' workspaces, NCCL's connections)
// is there behind them. The next one is recorded, which executes nothing, and then replayed. Of every later one the
// batches and the flags are copied into tensors that never move, in stream order, so behind the replay before; then it
// is replayed. A step whose batches have other shapes than the recorded one's is launched as ever, in between.
//
// A replay repeats the kernels and not the host's code, so what changes from step to step has to lie on the device, in
// place: parameters, moments, the update count and with it the learning rate, the weighting's state, what is kept for
// the next step (Update::keep_for_observing, StepStatistics::begin), and the inputs. The exceptions are the reasons
// that why_not_captured() knows.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dist/device_graph.h"
#include "launch/logging.h"
#include "launch/update.h"

namespace duoflow::launch {

// "": the steps of such a run can be captured; else why not, in one line. The same on every rank. profiles: the run has
// steps to profile (train --profile).
std::string why_not_captured(Config const& config, dist::Communicator const& communicator, at::Device device,
                             bool profiles);

// What a step takes from its source, all of it at once.
struct StepInputs {
  std::vector<MicroBatch> joint;
  std::vector<ReconstructionMicroBatch> reconstruction;
  at::Tensor flags;

  std::vector<at::Tensor*> tensors();  // in one order; some may be undefined
};

class CapturedUpdate {
 public:
  static constexpr std::int64_t kWarmUpSteps = 3;  // torch's make_graphed_callables takes as many

  using MakeGraph = std::function<std::unique_ptr<dist::DeviceGraph>()>;
  using Say = std::function<void(LogLevel level, std::string const& text)>;
  // `update`, made with this config on the stream that is current in run() (dist/device_graph.h), must outlive this,
  // and this must be gone before the group is closed. alone: no other rank waits for this one. say: is told once each
  // that steps are captured, that some have other shapes, that capturing failed.
  CapturedUpdate(Update& update, Config const& config, BatchPlan const& plan, bool alone, MakeGraph make_graph,
                 Say say);

  // As Update::run. Of a replayed step the source is asked for everything first and sees one lap, Stage::data. The
  // tensors of the result are those of the steps before. When capturing fails the run goes on as without it, where no
  // other rank has recorded collectives that would wait for this one's; else std::runtime_error.
  Update::Result run(std::int64_t step, StepSource& source);

 private:
  class Given;
  StepInputs take(StepSource& source) const;
  Update::Result run_with(StepInputs& inputs, std::int64_t step, StepSource& source);
  bool capture(std::int64_t step);
  void fill(StepInputs& inputs);

  Update& update_;
  bool joint_, alone_;
  std::int64_t micro_steps_;
  MakeGraph make_graph_;
  Say say_;
  std::int64_t steps_ = 0;
  bool gave_up_ = false, said_shapes_ = false;
  StepInputs inputs_;  // what the recorded step reads
  Update::Result result_;
  std::unique_ptr<dist::DeviceGraph> graph_;  // last: gone before what it reads
};

}  // namespace duoflow::launch
