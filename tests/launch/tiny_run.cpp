#include "tests/launch/tiny_run.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>

namespace duoflow::launch {
namespace {

class TracedWork : public dist::Pending::Work {
 public:
  TracedWork(dist::Pending inner, std::shared_ptr<Events> events, char const* event)
      : inner_(std::move(inner)), events_(std::move(events)), event_(event) {}
  void wait() override {
    if (event_) events_->push_back(event_);
    inner_.wait();
  }

 private:
  dist::Pending inner_;
  std::shared_ptr<Events> events_;
  char const* event_;
};

class TracingTransport : public dist::Transport {
 public:
  TracingTransport(dist::Communicator inner, std::shared_ptr<Events> events)
      : inner_(std::move(inner)), events_(std::move(events)) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string name() const override { return "traced " + inner_.transport()->name(); }
  dist::Pending all_reduce(at::Tensor tensor, dist::ReduceOp op) override {
    bool const statistics = tensor.scalar_type() == at::kDouble;
    events_->push_back(statistics ? kStatisticsStarted : kBucketStarted);
    auto pending = inner_.transport()->all_reduce(std::move(tensor), op);
    return dist::Pending(
        std::make_shared<TracedWork>(std::move(pending), events_, statistics ? kStatisticsAwaited : nullptr));
  }
  dist::Pending reduce_scatter(at::Tensor output, at::Tensor input) override {
    return other("reduce_scatter", inner_.transport()->reduce_scatter(output, input));
  }
  dist::Pending all_gather(at::Tensor output, at::Tensor input) override {
    return other("all_gather", inner_.transport()->all_gather(output, input));
  }
  dist::Pending all_to_all(at::Tensor output, at::Tensor input) override {
    return other("all_to_all", inner_.transport()->all_to_all(output, input));
  }
  dist::Pending broadcast(at::Tensor tensor, int root) override {
    return other("broadcast", inner_.transport()->broadcast(tensor, root));
  }
  void barrier() override {
    events_->push_back("barrier");
    inner_.transport()->barrier();
  }

 private:
  dist::Pending other(char const* event, dist::Pending pending) {
    events_->push_back(event);
    return pending;
  }

  dist::Communicator inner_;
  std::shared_ptr<Events> events_;
};

TrainingConfig training(TinyShape const& shape, int size) {
  TrainingConfig config;
  config.global_batch_size = shape.global_batch;
  auto const most = (shape.global_batch + size - 1) / size;
  config.batch_size_per_gpu = (most + shape.micro_steps - 1) / shape.micro_steps;
  return config;
}

std::vector<dist::TrainableParameter> trainable(model::SceneModel const& scene_model) {
  std::vector<dist::TrainableParameter> result;
  for (auto const part : {model::Part::editor, model::Part::renderer})
    for (auto const& parameter : scene_model.parameters())
      if (parameter.part == part && parameter.tensor.requires_grad())
        result.push_back({parameter.name, parameter.tensor, parameter.tensor.dim() == 1 ? 1 : 0});
  return result;
}

at::Tensor wave(std::vector<std::int64_t> const& shape, double frequency, double phase) {
  return (at::arange(c10::multiply_integers(shape), at::kDouble) * frequency + phase).cos().to(at::kFloat).view(shape);
}

model::JointBatch part_of(model::JointBatch const& batch, std::int64_t begin, std::int64_t count) {
  auto const cut = [&](at::Tensor const& x) { return x.narrow(0, begin, count); };
  return {cut(batch.x0), cut(batch.x1), cut(batch.t), cut(batch.env), cut(batch.target_rays), cut(batch.target_image)};
}

}  // namespace

dist::Communicator traced(dist::Communicator const& inner, std::shared_ptr<Events> events) {
  return inner.transport() ? dist::Communicator(std::make_shared<TracingTransport>(inner, std::move(events))) : inner;
}

model::ModelOptions tiny_options() {
  model::ModelOptions options;
  options.d = 16;
  options.d_head = 8;
  options.patch_size = 8;
  options.encoder_n_layer = options.decoder_n_layer = options.editor_n_layer = 1;
  options.n_latent_vectors = 4;
  options.image_size = 16;
  options.env_height = 8;
  return options;
}

model::SceneModel tiny_model(bool train_renderer, at::Device device) {
  model::SceneModel result(tiny_options(), 5);
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (auto const& parameter : result.parameters()) {
    auto const phase = static_cast<double>(weights.size());
    if (parameter.trainable)
      weights.emplace_back(parameter.name,
                           parameter.tensor.detach() + 0.1 * wave(parameter.tensor.sizes().vec(), 0.37, phase));
  }
  result.load(weights);
  result.set_latent_statistics(0.1 * wave({16}, 0.9, 0), 1 + 0.3 * wave({16}, 0.7, 1));
  result.set_trainable(model::Part::reconstructor, false);
  result.set_trainable(model::Part::editor, true);
  result.set_trainable(model::Part::renderer, train_renderer);
  result.to(device);
  return result;
}

model::WeightingOptions tiny_weighting() {
  model::WeightingOptions options;
  options.name = "normalized";
  options.ema = 0.9;
  return options;
}

model::JointLossOptions tiny_losses() {
  model::JointLossOptions options;
  options.lambda_v = 0.5;
  options.lambda_r = 2;
  return options;
}

model::JointBatch tiny_batch(std::int64_t samples, std::int64_t update, at::Device device) {
  auto const phase = 10.0 * static_cast<double>(update);
  model::JointBatch batch;
  batch.x0 = wave({samples, 4, 16}, 0.71, phase);
  batch.x1 = wave({samples, 4, 16}, 0.53, phase + 1);
  batch.t = 0.5 + 0.4 * wave({samples}, 1.3, phase + 2);
  batch.env = wave({samples, 1, 9, 8, 16}, 0.17, phase + 3);
  batch.target_rays = wave({samples, 2, 6, 16, 16}, 0.13, phase + 4);
  batch.target_image = 0.5 + 0.5 * wave({samples, 2, 3, 16, 16}, 0.11, phase + 5);
  for (auto* const tensor : {&batch.x0, &batch.x1, &batch.t, &batch.env, &batch.target_rays, &batch.target_image})
    *tensor = tensor->to(device);
  return batch;
}

// Buckets of about 1 KiB, so that there are several. Adam's eps is large, so that a gradient that is only rounding does
// not become a whole step.
TinyRun::TinyRun(dist::Communicator const& communicator, TinyShape const& shape)
    : communicator_(traced(communicator, events_)),
      plan_(plan_batches(training(shape, communicator.size()), {}, communicator.rank(), communicator.size())),
      train_renderer_(shape.train_renderer),
      device_(shape.device),
      model_(tiny_model(shape.train_renderer, shape.device)),
      buffer_(trainable(model_), {0.001, 0.001, 1}),
      reducer_(communicator_, buffer_),
      gradient_norm_(buffer_),
      optimizer_(buffer_, {0.9, 0.95, 1e-3, {0.05, 0}}),
      weighting_(model::make_weighting(tiny_weighting(), shape.device)),
      joint_step_(model_, tiny_losses(), *weighting_),
      exchange_(communicator_, model::kStatisticCount, shape.device) {
  dist::agree_on_parameters(communicator_, buffer_);
  watch_gradients();
  events_->clear();
}

void TinyRun::watch_gradients() {
  for (auto const& parameter : model_.parameters()) {
    if (!parameter.tensor.requires_grad()) continue;
    auto const* event = parameter.part == model::Part::editor ? kEditorGradient : kRendererGradient;
    parameter.tensor.register_hook([events = events_, event](at::Tensor const&) { events->push_back(event); });
  }
}

void TinyRun::micro_steps(model::JointBatch const& global_batch) {
  std::set<std::string> used, renderer;
  for (auto const& parameter : model_.parameters()) {
    if (parameter.trainable && parameter.part == model::Part::editor) used.insert(parameter.name);
    if (parameter.trainable && train_renderer_ && parameter.part == model::Part::renderer)
      renderer.insert(parameter.name);
  }
  used.insert(renderer.begin(), renderer.end());
  auto const local = at::zeros({model::kStatisticCount}, at::TensorOptions(at::kDouble).device(device_));
  std::vector<model::JointBatch> batches;
  std::vector<model::AtCut> cuts;
  for (std::int64_t k = 0; k < plan_.micro_steps; ++k) {
    auto const offset = k * plan_.micro_batch;
    batches.push_back(part_of(global_batch, plan_.first + offset, std::min(plan_.micro_batch, plan_.samples - offset)));
    if (plan_.micro_steps == 1) reducer_.arm(used);
    cuts.push_back(joint_step_.run_to_cut(batches.back(), step_, plan_.global_batch, plan_.micro_steps == 1,
                                          [&](at::Tensor const& sums) {
                                            events_->push_back(kForwardDone);
                                            local.add_(sums);
                                            if (k + 1 == plan_.micro_steps) exchange_.start(local);
                                          }));
    events_->push_back(kCutReached);
  }
  statistics_ = exchange_.await().clone();
  weights_ = joint_step_.combine(statistics_, step_);
  cut_sums_ = at::zeros({3}, at::TensorOptions(at::kDouble).device(device_));
  for (std::int64_t k = 0; k < plan_.micro_steps; ++k) {
    if (plan_.micro_steps > 1 && k + 1 == plan_.micro_steps) reducer_.arm(used, renderer);
    joint_step_.run_from_cut(batches[static_cast<std::size_t>(k)], cuts[static_cast<std::size_t>(k)], weights_,
                             cut_sums_);
  }
}

bool TinyRun::update(model::JointBatch const& global_batch) { return launch_update(global_batch).item<bool>(); }

at::Tensor TinyRun::launch_update(model::JointBatch const& global_batch) {
  reducer_.zero();
  micro_steps(global_batch);
  reducer_.finish();
  gradients_ = buffer_.gradients().clone();
  auto const norm = gradient_norm_.clip(buffer_.gradients(), 1.0);
  auto const skip = at::logical_or(statistics_[model::kNonFinite] > 0, at::logical_not(at::isfinite(norm)));
  optimizer_.step(buffer_.gradients(), at::full({}, 1e-2, at::TensorOptions(at::kFloat).device(device_)),
                  skip.to(at::kFloat));
  ++step_;
  return skip;
}

}  // namespace duoflow::launch
