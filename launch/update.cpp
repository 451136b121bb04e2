#include "launch/update.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include "launch/run_setup.h"

namespace duoflow::launch {

Update::Update(dist::Communicator const& communicator, model::SceneModel& model, Config const& config,
               BatchPlan const& plan, at::Device device, double adam_eps, model::LossNetworks const& networks)
    : model_(model),
      config_(config),
      plan_(plan),
      shared_over_(config.dist.zero > 0 ? communicator : dist::Communicator()),
      buffer_(make_buffer(model, config, plan, communicator.size())),
      reducer_(communicator, buffer_,
               {config.dist.zero > 0, config.dist.reproducible, config.dist.reproducible ? plan.micro_steps : 1,
                config.dist.gradient_dtype == "bf16"}),
      gradient_norm_(buffer_, shared_over_),
      optimizer_(buffer_, adamw_options(model, config, adam_eps), shared_over_),
      weighting_(model::make_weighting(weighting_options(config), device)),
      joint_step_(model, loss_options(config, networks), *weighting_),
      render_loss_(loss_options(config, networks).render),
      statistics_(communicator, plan.shards, device),
      schedule_{config.training.lr, config.training.warmup, config.training.train_steps,
                config.training.scheduler_type} {
  dist::agree_on_parameters(communicator, buffer_);
  if (auto const rounded = optimizer_.rounded(); rounded.defined())
    for (auto const& range : buffer_.ranges())
      rounded_.emplace(range.name, rounded.narrow(0, range.offset, range.numel).view(range.shape));
  for (auto const& range : dist::owned_ranges(buffer_, shared_over_.rank(), shared_over_.size()))
    if (range.section == static_cast<int>(model::Part::renderer))
      renderer_gradients_.push_back(reducer_.own_gradients().narrow(0, range.own, range.numel));
  if (weighting_->observes(model::GradientSpace::over_parameters, 0)) editor_gradients_.emplace(buffer_, shared_over_);
}

Update::Result Update::run(std::int64_t step, StepSource& source) {
  {
    RECORD_USER_SCOPE("gradients to zero");
    reducer_.zero();
    statistics_.begin();
  }
  result_.weights = config_.objective == "joint" ? joint_micro_steps(step, source) : reconstruction_micro_steps(source);
  {
    RECORD_USER_SCOPE("exposed communication");
    reducer_.finish();
  }
  finish_gradients();
  source.lap(Stage::communication);
  RECORD_USER_SCOPE("optimizer");
  auto const measured = gradient_norm_.measure(reducer_.own_gradients(), config_.training.grad_clip_norm);
  result_.norm = measured.norm;
  if (shared_over_.size() > 1) source.lap(Stage::communication);  // mostly the wait for the other ranks' squares
  result_.rate = learning_rate(schedule_, optimizer_.update_count());
  result_.skipped = apply(measured, result_.rate);
  keep_for_observing();
  source.lap(Stage::optimizer);
  return result_;
}

void Update::abandon() {
  reducer_.abandon();
  statistics_.abandon();
  optimizer_.abandon();
  result_ = {};
}

// Once the parameters are there, before the first use in a step. What trains is rounded by the optimizer.
void Update::round_weights() {
  RECORD_USER_SCOPE("weights to bf16");
  model_.round_weights(rounded_, running_parts(config_));
}

// Parameters that get a gradient in this step: up to the cut (the renderer's), and behind it.
Update::Used const& Update::used_parameters(std::int64_t step) {
  bool const renders = renders_at_all(config_) && weighting_->known_render_weight(step).value_or(1) != 0;
  auto& used = used_[renders ? 1 : 0];
  if (!used) used = find_used(renders);
  used_now_ = &*used;
  return *used;
}

Update::Used Update::find_used(bool renders) const {
  Used used;
  for (auto const& parameter : model_.parameters()) {
    if (!parameter.trainable || !parameter.tensor.requires_grad() || !trains(config_, parameter.part)) continue;
    if (parameter.part != model::Part::renderer)
      used.behind_cut.insert(parameter.name);
    else if (renders)
      used.to_cut.insert(parameter.name);
  }
  used.all = used.behind_cut;
  used.all.insert(used.to_cut.begin(), used.to_cut.end());
  return used;
}

// Where the weights are known a micro-step runs from end to end. Else all run down to the cut, the step's statistics
// are awaited, and all run on from there; the graphs before the cut are kept when together they are no larger than
// batch_size_per_gpu allows (one micro-step; virtual shards that are smaller), and made again else: the same bits.
model::LossWeights Update::joint_micro_steps(std::int64_t step, StepSource& source) {
  auto const last = plan_.micro_steps - 1;
  auto const& used = used_parameters(step);
  auto const known = joint_step_.known_weights(step);
  measures_ = weighting_->observes(model::GradientSpace::over_parameters, step);
  render_weight_is_late_ = !known && !weighting_->known_render_weight(step);
  auto const held = measures_ ? velocity_alone(used, source) : std::vector<MicroBatch>();
  bool const runs_on = known || last == 0;
  bool const keeps_graph = runs_on || plan_.samples <= config_.training.batch_size_per_gpu;
  std::vector<model::JointBatch> batches;
  std::vector<model::AtCut> cuts;
  for (std::int64_t k = 0; k <= last; ++k) {
    auto [batch, first_sample] = measures_ ? held[static_cast<std::size_t>(k)] : source.joint(k);
    source.lap(Stage::data);
    if (k == 0) {
      wait_for_parameters();
      source.lap(Stage::communication);
      round_weights();
    }
    // The gradients of the last micro-step are final from the last chunk of its views on, which follows the statistics.
    auto const at_losses = [&, first_sample = first_sample](at::Tensor const& sums) {
      contribute(k, sums, first_sample, source);
      if (runs_on && k == last) reducer_.arm(used.all);
    };
    auto cut = joint_step_.run_to_cut(batch, step, plan_.global_batch, keeps_graph, at_losses);
    result_.picture = cut.image;
    result_.target = batch.target_image;
    if (known) {
      joint_step_.run_from_cut(batch, cut, *known, statistics_.cut_sums(shard_of(k)));
      shard_done(k, used.all);
    } else {
      shard_done(k, used.to_cut);
      batch.target_image = batch.target_rays = cut.image = at::Tensor();  // the second half needs neither
      batches.push_back(std::move(batch));
      cuts.push_back(std::move(cut));
    }
    source.lap(Stage::backward, reducer_.take_waited_ms());
  }
  await_statistics();
  observe_cut();
  keep_weighting();
  if (weighting_->observes(model::GradientSpace::at_v_pred_now, step)) observe_now(cuts);
  source.lap(Stage::communication);
  auto const weights = joint_step_.combine(result_.statistics, step);
  if (known) return weights;
  for (std::int64_t k = 0; k <= last; ++k) {
    if (last > 0 && k == last) reducer_.arm(used.all, used.to_cut);
    auto const i = static_cast<std::size_t>(k);
    joint_step_.run_from_cut(batches[i], cuts[i], weights, statistics_.cut_sums(shard_of(k)));
    cuts[i] = {};
    shard_done(k, used.behind_cut);
  }
  source.lap(Stage::backward, reducer_.take_waited_ms());
  return weights;
}

// The gradient of the velocity loss by itself, reduced and kept: one editor forward, backward and reduction more than
// other steps. The batches are for the step's own passes.
std::vector<MicroBatch> Update::velocity_alone(Used const& used, StepSource& source) {
  std::vector<MicroBatch> held;
  for (std::int64_t k = 0; k < plan_.micro_steps; ++k) held.push_back(source.joint(k));
  source.lap(Stage::data);
  wait_for_parameters();
  round_weights();
  for (std::int64_t k = 0; k < plan_.micro_steps; ++k) {
    if (k + 1 == plan_.micro_steps) reducer_.arm(used.behind_cut);
    RECORD_USER_SCOPE("velocity loss again");  // or rather before: the step's own pass is as if this had not been
    joint_step_.run_velocity_alone(held[static_cast<std::size_t>(k)].first, plan_.global_batch);
    shard_done(k, used.behind_cut);
  }
  reducer_.finish();
  editor_gradients_->keep_velocity(reducer_.own_gradients());
  reducer_.zero();
  return held;
}

model::LossWeights Update::reconstruction_micro_steps(StepSource& source) {
  auto& used = used_[1];
  if (!used) {
    used.emplace();
    for (auto const& range : buffer_.ranges()) used->all.insert(range.name);
  }
  for (std::int64_t k = 0; k < plan_.micro_steps; ++k) {
    auto const [inputs, first_sample] = source.reconstruction(k);
    source.lap(Stage::data);
    if (k == 0) {
      wait_for_parameters();
      source.lap(Stage::communication);
      round_weights();
    }
    auto const at_losses = [&, first_sample = first_sample](at::Tensor const& sums) {
      contribute(k, sums, first_sample, source);
      if (k + 1 == plan_.micro_steps) reducer_.arm();
    };
    result_.picture = model::reconstruction_step(model_, render_loss_, inputs, plan_.global_batch, at_losses);
    result_.target = inputs.target_image;
    shard_done(k, used->all);
    source.lap(Stage::backward, reducer_.take_waited_ms());
  }
  await_statistics();
  source.lap(Stage::communication);
  auto const one = at::ones({}, at::TensorOptions(at::kFloat).device(buffer_.parameters().device()));
  return {one, one};
}

void Update::await_statistics() {
  RECORD_USER_SCOPE("exposed communication");
  result_.statistics = statistics_.await();
}

// Called between a micro-step's forward and the backward of its last views; the last one starts the all-reduce.
void Update::contribute(std::int64_t k, at::Tensor const& sums, at::Tensor const& first_sample, StepSource& source) {
  source.lap(Stage::forward);
  RECORD_USER_SCOPE("statistics");
  statistics_.add(shard_of(k), sums, first_sample);
  if (k + 1 == plan_.micro_steps) statistics_.send(source.flags());
}

// Reproducible mode: each micro-step is a virtual shard, whose gradients are summed from zero and then along the tree.
void Update::shard_done(std::int64_t k, std::set<std::string> const& names) {
  if (config_.dist.reproducible && k + 1 < plan_.micro_steps) reducer_.shard_done(k, names);
}

std::int64_t Update::shard_of(std::int64_t k) const { return config_.dist.reproducible ? plan_.first_shard + k : 0; }

// What the step before measured at v_pred has arrived: its weights and whether it was skipped were kept. Part of that
// step, so a skip of this one does not take it back.
void Update::observe_cut() {
  if (!observed_applied_.defined()) return;
  joint_step_.observe({result_.statistics[model::kGradVelocitySq], result_.statistics[model::kGradRenderSq]},
                      observed_weights_, observed_applied_);
}

// This step's own norms: part of the step, so a skip takes back what was learned of them.
void Update::observe_now(std::vector<model::AtCut> const& cuts) {
  RECORD_USER_SCOPE("exposed communication");
  auto const of_shards = at::zeros({plan_.shards, 2}, result_.statistics.options());
  for (std::int64_t k = 0; k < plan_.micro_steps; ++k) {
    auto const squares = joint_step_.bare_squares(cuts[static_cast<std::size_t>(k)]);
    of_shards.select(0, shard_of(k)).add_(at::stack({squares.velocity, squares.render}));
  }
  auto const sums = statistics_.reduce_squares(of_shards);
  weighting_->observe({sums[0], sums[1]}, (result_.statistics[model::kNonFinite] == 0).to(at::kDouble));
}

// In place: a captured step finds the last one's where they were.
void Update::keep_for_observing() {
  if (config_.objective != "joint" || !weighting_->observes(model::GradientSpace::at_v_pred, 0)) return;
  if (!observed_applied_.defined()) {
    observed_weights_ = {at::empty_like(result_.weights.velocity), at::empty_like(result_.weights.render)};
    observed_applied_ = at::empty_like(result_.skipped);
  }
  observed_weights_.velocity.copy_(result_.weights.velocity);
  observed_weights_.render.copy_(result_.weights.render);
  observed_applied_.copy_(at::logical_not(result_.skipped));
}

// The reduced gradients become those of the objective: a w_r that came after the renderer's backward has its place
// here, before norm and clip.
void Update::finish_gradients() {
  if (config_.objective != "joint") return;
  at::NoGradGuard const no_grad;
  if (render_weight_is_late_)
    for (auto& range : renderer_gradients_) range.mul_(result_.weights.render);
  if (measures_)
    joint_step_.observe(editor_gradients_->squares(reducer_.own_gradients(), result_.weights.velocity), result_.weights,
                        at::ones({}, result_.weights.velocity.options().dtype(at::kBool)));
}

void Update::keep_weighting() {
  auto const state = weighting_->state();
  weighting_before_.resize(state.size());
  for (std::size_t i = 0; i < state.size(); ++i) {
    if (!weighting_before_[i].defined()) weighting_before_[i] = at::empty_like(state[i].second);
    weighting_before_[i].copy_(state[i].second);
  }
}

// Skips, on the device and from reduced values alone, when a loss or the norm is not finite or the norm is far out of
// bounds: parameters, moments, update count (and with it the schedule) and the weighting's state stay as they were.
at::Tensor Update::apply(dist::GradientNorm::Measured const& measured, at::Tensor const& rate) {
  auto const& t = config_.training;
  at::Tensor const& norm = measured.norm;
  auto skip = at::logical_or(result_.statistics[model::kNonFinite] > 0, at::logical_not(at::isfinite(norm)));
  if (t.grad_clip_norm > 0 && t.allowed_gradnorm_factor > 0)
    skip = at::logical_or(skip, norm > t.grad_clip_norm * t.allowed_gradnorm_factor);
  bool const renderer_idle = config_.objective == "joint" && used_now_->to_cut.empty();
  optimizer_.step(reducer_.own_gradients(), rate, skip.to(at::kFloat),
                  renderer_idle ? std::uint32_t{1} << static_cast<int>(model::Part::renderer) : 0, measured.factor);
  auto const state = weighting_->state();
  for (std::size_t i = 0; i < weighting_before_.size(); ++i)
    state[i].second.copy_(at::where(skip, weighting_before_[i], state[i].second));
  return skip;
}

std::vector<double> Update::drain(at::Tensor const& flags) {
  statistics_.begin();
  statistics_.send(flags);
  result_.statistics = statistics_.await();
  if (config_.objective == "joint") observe_cut();
  auto const host = result_.statistics.cpu();
  auto const* values = host.const_data_ptr<double>();
  return {values, values + host.numel()};
}

}  // namespace duoflow::launch
