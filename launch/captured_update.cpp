#include "launch/captured_update.h"

#include <stdexcept>
#include <utility>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "launch/batches.h"
#include "launch/run_setup.h"

namespace duoflow::launch {

std::string why_not_captured(Config const& config, dist::Communicator const& communicator, at::Device device,
                             bool profiles) {
  auto const& t = config.training;
  if (!device.is_cuda()) return fmt::format("the device is {}, and only CUDA records a step", device.str());
  auto const* const transport = communicator.transport();
  if (transport != nullptr && transport->moves_host_memory())
    return fmt::format("the collectives go through host memory ({}), which waits for the device in every step",
                       transport->name());
  if (profiles) return "--profile measures the parts of a step, and a replayed step has none";
  bool const joint = config.objective == "joint";
  if (joint && model::make_weighting(weighting_options(config), at::kCPU)->depends_on_step())
    return fmt::format("flow_matching.weighting: {} changes with the step what is computed", config.flow.weighting);
  bool const has_network = t.lpips_loss_weight > 0 || t.perceptual_loss_weight > 0;
  if (t.perceptual_crop > 0 && has_network && (!joint || renders_at_all(config)))
    return "training.perceptual_crop draws on the host where each sample's crop lies";
  return "";
}

std::vector<at::Tensor*> StepInputs::tensors() {
  std::vector<at::Tensor*> all;
  auto const add = [&all](auto& micro_batches) {
    for (auto& [batch, first_sample] : micro_batches) {
      auto const of_batch = tensors_of(batch);
      all.insert(all.end(), of_batch.begin(), of_batch.end());
      all.push_back(&first_sample);
    }
  };
  add(joint);
  add(reconstruction);
  all.push_back(&flags);
  return all;
}

namespace {

bool same_shape(at::Tensor const& a, at::Tensor const& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || (a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() && a.device() == b.device());
}

bool same_shapes(StepInputs& a, StepInputs& b) {
  auto const ours = a.tensors(), theirs = b.tensors();
  bool same = ours.size() == theirs.size();
  for (std::size_t i = 0; same && i < ours.size(); ++i) same = same_shape(*ours[i], *theirs[i]);
  return same;
}

StepInputs copies_of(StepInputs const& inputs) {
  StepInputs copies = inputs;
  for (at::Tensor* tensor : copies.tensors())
    if (tensor->defined()) *tensor = tensor->clone();
  return copies;
}

std::string reason_of(std::exception const& error) {
  auto const* const of_torch = dynamic_cast<c10::Error const*>(&error);  // whose what() has a backtrace
  return of_torch != nullptr ? of_torch->what_without_backtrace() : error.what();
}

}  // namespace

// A source of what is there already; laps go to the one it was taken from, if any.
class CapturedUpdate::Given : public StepSource {
 public:
  explicit Given(StepInputs& inputs, StepSource* laps = nullptr) : inputs_(inputs), laps_(laps) {}
  MicroBatch joint(std::int64_t k) override { return inputs_.joint.at(static_cast<std::size_t>(k)); }
  ReconstructionMicroBatch reconstruction(std::int64_t k) override {
    return inputs_.reconstruction.at(static_cast<std::size_t>(k));
  }
  at::Tensor flags() override { return inputs_.flags; }
  void lap(Stage stage, double waited_ms) override {
    if (laps_ != nullptr) laps_->lap(stage, waited_ms);
  }

 private:
  StepInputs& inputs_;
  StepSource* laps_;
};

CapturedUpdate::CapturedUpdate(Update& update, Config const& config, BatchPlan const& plan, bool alone,
                               MakeGraph make_graph, Say say)
    : update_(update),
      joint_(config.objective == "joint"),
      alone_(alone),
      micro_steps_(plan.micro_steps),
      make_graph_(std::move(make_graph)),
      say_(std::move(say)) {}

Update::Result CapturedUpdate::run(std::int64_t step, StepSource& source) {
  if (gave_up_ || steps_++ < kWarmUpSteps) return update_.run(step, source);
  auto inputs = take(source);
  source.lap(Stage::data);
  update_.wait_for_parameters();  // of a step that was not replayed: a replay waits for nothing outside itself
  if (!graph_) {
    inputs_ = copies_of(inputs);
    if (!capture(step)) return run_with(inputs, step, source);
  } else if (same_shapes(inputs_, inputs)) {
    fill(inputs);
  } else {
    if (!std::exchange(said_shapes_, true))
      say_(LogLevel::warning,
           fmt::format("training.cuda_graph: step {} has batches of other shapes than the captured one: such steps are "
                       "launched kernel by kernel",
                       step + 1));
    return run_with(inputs, step, source);
  }
  graph_->replay();
  return result_;
}

StepInputs CapturedUpdate::take(StepSource& source) const {
  StepInputs inputs;
  for (std::int64_t k = 0; k < micro_steps_; ++k) {
    if (joint_)
      inputs.joint.push_back(source.joint(k));
    else
      inputs.reconstruction.push_back(source.reconstruction(k));
  }
  inputs.flags = source.flags();
  return inputs;
}

Update::Result CapturedUpdate::run_with(StepInputs& inputs, std::int64_t step, StepSource& source) {
  Given given(inputs, &source);
  return update_.run(step, given);
}

// Whether the step is recorded. It ends with all parameters there, so that what ZeRO-1 starts is waited for within.
bool CapturedUpdate::capture(std::int64_t step) {
  auto const work = [this, step] {
    Given given(inputs_);
    result_ = update_.run(step, given);
    update_.wait_for_parameters();
  };
  try {
    graph_ = make_graph_();
    graph_->capture(work);
  } catch (std::exception const& error) {
    graph_.reset();
    result_ = {};
    inputs_ = {};
    if (!alone_)
      throw std::runtime_error(fmt::format(
          "the step could not be captured as a CUDA graph ({}); set training.cuda_graph=false", reason_of(error)));
    update_.abandon();
    gave_up_ = true;
    say_(LogLevel::warning, fmt::format("training.cuda_graph: the step could not be captured ({}); the run goes on "
                                        "without, set it to false",
                                        reason_of(error)));
    return false;
  }
  say_(LogLevel::info,
       fmt::format("training.cuda_graph: step {} is captured, it and later ones are replayed; of the host's "
                   "time in them the wait for data is known and the rest is one, so comm_wait_ms is 0",
                   step + 1));
  return true;
}

void CapturedUpdate::fill(StepInputs& inputs) {
  auto const into = inputs_.tensors(), from = inputs.tensors();
  for (std::size_t i = 0; i < into.size(); ++i)
    if (into[i]->defined()) into[i]->copy_(*from[i], /*non_blocking=*/true);
}

}  // namespace duoflow::launch
