#include "tests/launch/tiny_run.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

#include "launch/parameter_rules.h"
#include "tests/model/loss_networks.h"

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
  bool moves_host_memory() const override { return inner_.transport()->moves_host_memory(); }
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

model::SceneModel tiny_model(bool train_renderer, at::Device device, bool recompute) {
  auto options = tiny_options();
  options.recompute_every = recompute ? 1 : 0;
  model::SceneModel result(options, 5);
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

// Buckets of about 1 KiB, so that there are several.
Config tiny_config(TinyShape const& shape, int size) {
  Config config;
  config.model = tiny_options();
  config.env_image_size = config.model.env_height;
  auto& t = config.training;
  t.global_batch_size = shape.global_batch;
  auto const most = (shape.global_batch + size - 1) / size;
  t.batch_size_per_gpu = (most + shape.micro_steps - 1) / shape.micro_steps;
  t.lr = 1e-2;
  t.warmup = shape.warmup;
  t.scheduler_type = "constant";
  t.grad_clip_norm = shape.clip;
  t.allowed_gradnorm_factor = shape.allowed;
  t.ema_decay = shape.ema;
  t.render_view_chunk = shape.view_chunk;
  t.freeze = shape.freeze;
  t.lr_scale = shape.lr_scale;
  t.freeze_reconstructor_renderer = !shape.train_renderer;
  config.flow.velocity_loss_weight = 0.5;
  config.flow.render_loss_weight = 2;
  config.flow.weighting = shape.weighting;
  config.flow.weight_clamp.clear();
  config.flow.time_sampling = "uniform";
  bool const smooths = shape.weighting.starts_with("normalized") || shape.weighting == "gradient_balance";
  config.flow.weight_ema = smooths ? 0.9 : 0;
  config.flow.velocity_only_steps = 2;
  config.flow.warmup_steps = 2;
  config.flow.schedule_form = "linear";
  config.flow.uncertainty_lr = 0.2;
  config.flow.gradient_space = shape.gradient_space;
  config.flow.gradient_interval = shape.gradient_interval;
  config.flow.statistics = shape.statistics;
  config.dist.bucket_mib = config.dist.first_bucket_mib = 0.001;
  config.dist.zero = shape.zero;
  config.dist.reproducible = shape.reproducible;
  config.dist.gradient_dtype = shape.bf16 ? "bf16" : "f32";
  config.dist.virtual_shards = shape.reproducible ? size * shape.micro_steps : 0;
  if (shape.image_terms) {
    t.lpips_loss_weight = 0.5, t.perceptual_loss_weight = 0.02, t.l1_loss_weight = 0.3, t.gradient_loss_weight = 0.2;
    t.perceptual_min_t = 0.4, t.perceptual_crop = 10;
  }
  return config;
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

WholeBatchLosses whole_batch_losses(model::SceneModel const& model, model::JointBatch const& batch,
                                    bool render_sees_v) {
  auto const x0 = model.to_flow_space(batch.x0), x1 = model.to_flow_space(batch.x1);
  auto const t = batch.t.view({-1, 1, 1});
  auto const x_t = (1 - t) * x0 + t * x1;
  auto const v = model.velocity(x_t, batch.t, model.light_tokens(batch.env));
  auto const x_hat = x_t + (1 - t) * (render_sees_v ? v : v.detach());
  auto const image = model.render(model.from_flow_space(x_hat), batch.target_rays);
  return {(v - (x1 - x0)).square().mean(), (image - batch.target_image).square().mean(), v};
}

namespace {

model::SceneModel marked_model(TinyShape const& shape, int size) {
  auto model = tiny_model(shape.train_renderer, shape.device, shape.recompute);
  freeze_by_rules(model, tiny_config(shape, size));
  return model;
}

}  // namespace

// Adam's eps is large, so that a gradient that is only rounding does not become a whole step.
TinyRun::TinyRun(dist::Communicator const& communicator, TinyShape const& shape, std::int64_t first_step)
    : communicator_(traced(communicator, events_)),
      config_(tiny_config(shape, communicator.size())),
      device_(shape.device),
      plan_(plan_batches(config_.training, config_.dist, communicator.rank(), communicator.size())),
      model_(marked_model(shape, communicator.size())),
      update_(communicator_, model_, config_, plan_, shape.device, 1e-3,
              shape.image_terms ? model::test::tiny_networks() : model::LossNetworks()),
      step_(first_step) {
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

MicroBatch TinyRun::joint(std::int64_t k) {
  auto const first = plan_.first + k * plan_.micro_batch;
  auto const count = std::min(plan_.micro_batch, plan_.samples - k * plan_.micro_batch);
  auto part = part_of(*batch_, first, count);
  part.positions.resize(static_cast<std::size_t>(count));
  std::iota(part.positions.begin(), part.positions.end(), static_cast<std::uint64_t>(first));
  return {part, sample_number(static_cast<std::uint64_t>(step_ * plan_.global_batch + first), device_)};
}

// Forward and backward laps come once per micro-step's first half, then a backward lap for all second halves. Waits:
// for the parameters, for the statistics, for the gradients (before the clipping), and with ZeRO-1 for the squares of
// the norm.
void TinyRun::lap(Stage stage, double) {
  if (stage == Stage::forward) events_->push_back(kForwardDone);
  if (stage == Stage::backward && halves_++ < plan_.micro_steps) events_->push_back(kCutReached);
  if (stage == Stage::communication && ++waits_ == 3) gradients_ = update_.reducer().own_gradients().clone();
}

void TinyRun::capture_with(CapturedUpdate::MakeGraph make_graph, bool alone) {
  captured_.emplace(update_, config_, plan_, alone, std::move(make_graph),
                    [this](LogLevel, std::string const& text) { said_.push_back(text); });
}

bool TinyRun::update(model::JointBatch const& global_batch) { return launch_update(global_batch).item<bool>(); }

at::Tensor TinyRun::launch_update(model::JointBatch const& global_batch) {
  batch_ = &global_batch;
  halves_ = waits_ = 0;
  result_ = captured_ ? captured_->run(step_, *this) : update_.run(step_, *this);
  ++step_;
  statistics_ = result_.statistics.clone();
  update_.wait_for_parameters();
  return result_.skipped;
}

}  // namespace duoflow::launch
