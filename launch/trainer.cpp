#include "launch/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <set>

#include <sys/resource.h>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "data/error.h"
#include "dist/error.h"
#include "dist/flat_buffer.h"
#include "dist/gradient_norm.h"
#include "dist/gradient_reducer.h"
#include "dist/sharded_adamw.h"
#include "launch/batches.h"
#include "launch/logging.h"
#include "launch/model_setup.h"
#include "launch/run_agreement.h"
#include "launch/run_log.h"
#include "launch/run_setup.h"
#include "launch/run_state.h"
#include "launch/schedule.h"
#include "launch/step_record.h"
#include "launch/step_statistics.h"
#include "launch/step_times.h"
#include "launch/training_data.h"
#include "model/joint_step.h"

namespace duoflow::launch {
namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

double peak_resident_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

struct UsedParameters {
  std::set<std::string> all, to_cut, behind_cut;
};

class Trainer {
 public:
  Trainer(dist::Runtime& runtime, Config const& config, TrainArguments const& arguments)
      : runtime_(runtime),
        config_(config),
        device_(choose_device(config.dist.device)),
        communicator_(runtime.communicator(device_.is_cuda() ? dist::Device::cuda : dist::Device::cpu)),
        checkpoints_(arguments.run + "/checkpoints"),
        resume_from_(find_checkpoint(communicator_, checkpoints_, arguments.resume)),
        model_(make_model(config, device_, !resume_from_.empty())),
        plan_(plan_batches(config.training, config.dist, communicator_.rank(), communicator_.size())),
        shared_over_(config.dist.zero > 0 ? communicator_ : dist::Communicator()),
        buffer_(make_buffer(model_, config, plan_, communicator_.size())),
        reducer_(communicator_, buffer_,
                 {config.dist.zero > 0, config.dist.reproducible, config.dist.reproducible ? plan_.micro_steps : 1,
                  config.dist.gradient_dtype == "bf16"}),
        gradient_norm_(buffer_, shared_over_),
        optimizer_(buffer_, {config.training.beta1, config.training.beta2, 1e-8, {config.training.weight_decay, 0}},
                   shared_over_),
        weighting_(model::make_weighting(weighting_options(config), device_)),
        joint_step_(model_, loss_options(config_), *weighting_),
        render_loss_(loss_options(config_).render),
        statistics_(communicator_, plan_.shards, device_),
        records_(communicator_.size(), device_),
        schedule_{config.training.lr, config.training.warmup, config.training.train_steps,
                  config.training.scheduler_type},
        encoding_(model::light_encoding_from_string(config.data.light_encoding)) {
    dist::agree_on_parameters(communicator_, buffer_);
    open(arguments);
  }

  int run();

 private:
  void open(TrainArguments const& arguments);
  void set_later_checkpoints_aside(std::int64_t step);
  void resume(std::string const& folder, std::string const& run);
  // What every rank finds alike is said by one.
  void warn_once(std::string const& text) const {
    if (communicator_.rank() == 0) log_warning(text);
  }

  void train_step();
  model::LossWeights joint_micro_steps();
  model::LossWeights reconstruction_micro_steps();
  UsedParameters used_parameters() const;
  void contribute(at::Tensor const& sums, std::int64_t micro_step, std::uint64_t position);
  void shard_done(std::int64_t micro_step, std::set<std::string> const& names);
  std::int64_t shard_of(std::int64_t micro_step) const;
  void send_statistics();
  void await_statistics();
  at::Tensor update(at::Tensor const& norm, at::Tensor const& rate);
  void record(model::LossWeights const& weights, at::Tensor const& norm, at::Tensor const& rate,
              at::Tensor const& skipped);
  data::Batch next_batch();
  void release_batches();

  void read_record(bool latest);
  void drain();
  void save();
  void show_pictures();
  void report_cost();
  bool leaving() const { return stop_ || time_up_; }

  dist::Runtime& runtime_;
  Config config_;
  at::Device device_;
  dist::Communicator communicator_;
  std::string checkpoints_, resume_from_;  // RUN/checkpoints; the checkpoint to go on from, "": none
  model::SceneModel model_;
  BatchPlan plan_;
  dist::Communicator shared_over_;  // ZeRO-1: the ranks that share the update; else null
  dist::FlatBuffer buffer_;
  dist::GradientReducer reducer_;
  dist::GradientNorm gradient_norm_;
  dist::ShardedAdamW optimizer_;
  std::unique_ptr<model::Weighting> weighting_;
  model::JointStep joint_step_;
  model::RenderLoss render_loss_;
  StepStatistics statistics_;
  StepRecords records_;
  ScheduleOptions schedule_;
  model::LightEncoding encoding_;
  std::unique_ptr<TrainingData> data_;
  std::unique_ptr<RunLog> log_;

  Counters counters_;
  std::vector<at::Tensor> weighting_before_;  // restored when the step is skipped
  at::Tensor global_;                         // reduced statistics
  std::vector<data::Batch> held_,
      held_before_;                     // batches of this step and the last: a copy may still read their memory
  at::Tensor picture_, target_;         // the last micro-step's, for images/
  std::optional<StepNumbers> pending_;  // waits for the next step's statistics
  double data_wait_ms_ = 0, last_step_ms_ = 0, last_data_wait_ms_ = 0, last_comm_wait_ms_ = 0;
  StepTimes times_;
  std::int64_t saved_step_ = -1;
  bool stop_ = false, time_up_ = false;
  Clock::time_point started_ = Clock::now();
};

void Trainer::open(TrainArguments const& arguments) {
  auto const& folder = resume_from_;
  std::int64_t step = 0, samples = 0;
  if (!folder.empty()) {
    auto const counters = dist::read_checkpoint_manifest(folder).at("counters");
    step = counters.at("step").get<std::int64_t>();
    samples = counters.at("samples").get<std::int64_t>();
  }
  data_ = std::make_unique<TrainingData>(arguments.data, config_, communicator_.rank(), communicator_.size(), samples,
                                         device_.is_cuda());
  agree_on_data(communicator_, runtime_.host(), arguments.data, data_->fingerprint());
  counters_.data_fingerprint = data_->fingerprint();
  if (folder.empty())
    set_latent_statistics(communicator_, model_, *data_);
  else
    resume(folder, arguments.run);
  counters_.global_batch = plan_.global_batch;
  if (arguments.resume != "auto") set_later_checkpoints_aside(folder.empty() ? -1 : step);
  if (data_->pairs()) {
    check_producer(config_, model_, *data_->pairs(), communicator_.rank() == 0);
    if (config_.training.num_target_views > data_->pairs()->targets)
      warn_once(fmt::format("training.num_target_views = {}, the pairs have {}: all of them are rendered",
                            config_.training.num_target_views, data_->pairs()->targets));
  }
  LineOptions const line{loss_options(config_).lambda_v, loss_options(config_).lambda_r, communicator_.size(),
                         config_.objective == "joint"};
  log_ = std::make_unique<RunLog>(arguments.run, config_, communicator_.rank(), line, counters_.step);
  log_->start(data_->samples(), plan_.global_batch, buffer_.size(), device_.str());
}

// The steps that a used folder holds beyond `step` are another run's or another branch's.
void Trainer::set_later_checkpoints_aside(std::int64_t step) {
  if (communicator_.rank() == 0) {
    auto const aside = dist::set_checkpoints_aside(checkpoints_, step);
    if (!aside.empty())
      log_warning(
          fmt::format("the checkpoints of {} that this run does not go on from are now in {}", checkpoints_, aside));
  }
  dist::barrier(communicator_);
}

void Trainer::resume(std::string const& folder, std::string const& run) {
  std::vector<std::string> changes;
  counters_ = unpack_run(dist::read_checkpoint(folder), {model_, buffer_, optimizer_, *weighting_}, config_,
                         data_->fingerprint(), &changes);
  std::error_code ignored;  // another run's checkpoint is none of this run's
  if (std::filesystem::equivalent(std::filesystem::path(folder).parent_path(), run + "/checkpoints", ignored))
    saved_step_ = counters_.step;
  if (counters_.global_batch != plan_.global_batch)
    changes.push_back(fmt::format("global batch: {} -> {}", counters_.global_batch, plan_.global_batch));
  log_info(fmt::format("resumed from {} (step {})", folder, counters_.step));
  for (auto const& change : changes) warn_once(fmt::format("changed since the checkpoint: {}", change));
}

// ---- training
// ---------------------------------------------------------------------------------------------------------

void Trainer::train_step() {
  data_wait_ms_ = 0;
  times_.begin();
  optimizer_.wait_for_parameters();
  reducer_.zero();
  statistics_.begin();
  auto const weights = config_.objective == "joint" ? joint_micro_steps() : reconstruction_micro_steps();
  reducer_.finish();
  times_.lap(Stage::communication);
  auto const norm = gradient_norm_.clip(reducer_.own_gradients(), config_.training.grad_clip_norm);
  auto const rate = learning_rate(schedule_, optimizer_.update_count());
  auto const skipped = update(norm, rate);
  times_.lap(Stage::optimizer);
  // ---- only diagnostics
  record(weights, norm, rate, skipped);
  last_data_wait_ms_ = data_wait_ms_;
  last_comm_wait_ms_ = times_.ms(Stage::communication);
}

// Parameters that get a gradient in this step: up to the cut (the renderer's), and behind it.
UsedParameters Trainer::used_parameters() const {
  bool const renders = loss_options(config_).lambda_r * weighting_->known_render_weight(counters_.step) != 0;
  UsedParameters used;
  for (auto const& parameter : model_.parameters()) {
    if (!parameter.trainable || !trains(config_, parameter.part)) continue;
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
// are awaited, and all run on from there; the graph before the cut is kept when there is one micro-step, and made again
// else.
model::LossWeights Trainer::joint_micro_steps() {
  auto const last = plan_.micro_steps - 1;
  auto const used = used_parameters();
  auto const known = joint_step_.known_weights(counters_.step);
  std::vector<model::JointBatch> batches;
  std::vector<model::AtCut> cuts;
  for (std::int64_t k = 0; k <= last; ++k) {
    auto const batch = next_batch();
    batches.push_back(joint_batch(batch, data_->source(), config_.model, encoding_, config_.training.seed, device_));
    times_.lap(Stage::data);
    bool const runs_on = known || last == 0;
    if (runs_on && k == last) reducer_.arm(used.all);
    cuts.push_back(joint_step_.run_to_cut(batches.back(), counters_.step, plan_.global_batch, runs_on,
                                          [&](at::Tensor const& sums) { contribute(sums, k, batch.first_position); }));
    picture_ = cuts.back().image;
    target_ = batches.back().target_image;
    if (known) {
      joint_step_.run_from_cut(batches.back(), cuts.back(), *known, statistics_.cut_sums(shard_of(k)));
      shard_done(k, used.all);
      batches.clear();
      cuts.clear();
    } else {
      shard_done(k, used.to_cut);
    }
    times_.lap(Stage::backward);
  }
  await_statistics();
  weighting_before_.clear();
  for (auto const& [name, tensor] : weighting_->state()) weighting_before_.push_back(tensor.clone());
  auto const weights = joint_step_.combine(global_, counters_.step);
  if (known) return weights;
  for (std::int64_t k = 0; k <= last; ++k) {
    if (last > 0 && k == last) reducer_.arm(used.all, used.to_cut);
    joint_step_.run_from_cut(batches[static_cast<std::size_t>(k)], cuts[static_cast<std::size_t>(k)], weights,
                             statistics_.cut_sums(shard_of(k)));
    shard_done(k, used.behind_cut);
  }
  times_.lap(Stage::backward);
  return weights;
}

model::LossWeights Trainer::reconstruction_micro_steps() {
  std::set<std::string> used;
  for (auto const& range : buffer_.ranges()) used.insert(range.name);
  for (std::int64_t k = 0; k < plan_.micro_steps; ++k) {
    auto const batch = next_batch();
    auto const inputs = reconstruction_batch(batch, data_->source(), device_);
    times_.lap(Stage::data);
    if (k + 1 == plan_.micro_steps) reducer_.arm();
    picture_ = model::reconstruction_step(model_, render_loss_, inputs, plan_.global_batch,
                                          [&](at::Tensor const& sums) { contribute(sums, k, batch.first_position); });
    target_ = inputs.target_image;
    shard_done(k, used);
    times_.lap(Stage::backward);
  }
  await_statistics();
  auto const one = at::ones({}, at::TensorOptions().dtype(at::kFloat).device(device_));
  return {one, one};
}

// Reproducible mode: each micro-step is a virtual shard, whose gradients are summed from zero and then along the tree.
void Trainer::shard_done(std::int64_t micro_step, std::set<std::string> const& names) {
  if (config_.dist.reproducible && micro_step + 1 < plan_.micro_steps) reducer_.shard_done(micro_step, names);
}

std::int64_t Trainer::shard_of(std::int64_t micro_step) const {
  return config_.dist.reproducible ? plan_.first_shard + micro_step : 0;
}

// Called between a micro-step's forward and its backward; the last one starts the all-reduce.
void Trainer::contribute(at::Tensor const& sums, std::int64_t micro_step, std::uint64_t position) {
  times_.lap(Stage::forward);
  statistics_.add(shard_of(micro_step), sums, position);
  if (micro_step + 1 == plan_.micro_steps) send_statistics();
}

void Trainer::send_statistics() {
  double const max_ms = config_.training.max_hours * 3.6e6;
  statistics_.send({runtime_.stop_requested(), max_ms > 0 && ms_since(started_) > max_ms, last_step_ms_,
                    last_data_wait_ms_, last_comm_wait_ms_});
}

void Trainer::await_statistics() {
  global_ = statistics_.await();
  times_.lap(Stage::communication);
}

// Skips, on the device and from reduced values alone, when a loss or the norm is not finite or the norm is far out of
// bounds.
at::Tensor Trainer::update(at::Tensor const& norm, at::Tensor const& rate) {
  auto const& t = config_.training;
  auto skip = at::logical_or(global_[model::kNonFinite] > 0, at::logical_not(at::isfinite(norm)));
  if (t.grad_clip_norm > 0 && t.allowed_gradnorm_factor > 0)
    skip = at::logical_or(skip, norm > t.grad_clip_norm * t.allowed_gradnorm_factor);
  optimizer_.step(reducer_.own_gradients(), rate, skip.to(at::kFloat));
  auto const state = weighting_->state();
  for (std::size_t i = 0; i < weighting_before_.size(); ++i)
    state[i].second.copy_(at::where(skip, weighting_before_[i], state[i].second));
  return skip;
}

// ---- only diagnostics, the log and the checkpoints below
// ----------------------------------------------------------------

void Trainer::record(model::LossWeights const& weights, at::Tensor const& norm, at::Tensor const& rate,
                     at::Tensor const& skipped) {
  ++counters_.step;
  counters_.samples += plan_.global_batch;
  auto const own = at::stack({weights.velocity.to(at::kDouble), weights.render.to(at::kDouble), norm.to(at::kDouble),
                              rate.to(at::kDouble), skipped.to(at::kDouble)});
  records_.push(counters_.step, counters_.samples, global_, own, times_.ms(Stage::communication));
}

data::Batch Trainer::next_batch() {
  auto batch = data_->next();
  data_wait_ms_ += data_->waited_ms();
  held_.push_back(batch);
  return batch;
}

// On CUDA the copies of the step just launched may still run; those of the step before it are done (its record was
// read).
void Trainer::release_batches() {
  if (!device_.is_cuda()) held_before_.swap(held_);
  for (auto const& batch : held_before_) data_->release(batch);
  held_before_ = std::move(held_);
  held_.clear();
}

// Completes the pending line with this record's late values and makes the record the pending one.
void Trainer::read_record(bool latest) {
  auto numbers = records_.take(latest);
  if (!numbers) return;
  if (pending_) log_->step(*pending_, numbers->statistics);
  stop_ = stop_ || numbers->statistics[kStop] > 0;
  time_up_ = time_up_ || numbers->statistics[kTimeUp] > 0;
  counters_.skips_in_a_row = numbers->own[kSkipped] != 0 ? counters_.skips_in_a_row + 1 : 0;
  if (numbers->own[kSkipped] != 0) log_->skipped(*numbers, plan_);
  pending_ = std::move(numbers);
  if (counters_.skips_in_a_row >= config_.training.max_skips_in_a_row)
    throw std::runtime_error(fmt::format(
        "{} updates in a row were skipped, the last at step {} (losses or gradients are not finite or far out of "
        "bounds: "
        "training has diverged or the data are bad); lower training.lr, or resume from an earlier checkpoint",
        counters_.skips_in_a_row, pending_->step));
}

// One more exchange, so that the last step's line can be written. Collective.
void Trainer::drain() {
  read_record(/*latest=*/false);
  read_record(/*latest=*/true);
  if (!pending_) return;
  statistics_.begin();
  send_statistics();
  auto const host = statistics_.await().cpu();  // at a checkpoint or the end, not on the step path
  auto const* values = host.const_data_ptr<double>();
  log_->step(*pending_, std::vector<double>(values, values + host.numel()));
  pending_.reset();
}

void Trainer::save() {
  drain();
  if (saved_step_ == counters_.step) return;
  auto const started = Clock::now();
  optimizer_.wait_for_parameters();
  dist::CheckpointWriterOptions options;
  options.directory = checkpoints_;
  options.keep_last = config_.training.keep_last;
  options.keep_every = config_.training.keep_every;
  auto const folder = dist::write_checkpoint(communicator_, options,
                                             pack_run({model_, buffer_, optimizer_, *weighting_}, counters_, config_));
  saved_step_ = counters_.step;
  log_->checkpoint(folder, ms_since(started));
}

void Trainer::show_pictures() {
  auto const every = config_.training.vis_every;
  if (every > 0 && counters_.step % every == 0 && communicator_.rank() == 0)
    log_->pictures(counters_.step, picture_, target_);
}

// Collective.
void Trainer::report_cost() {
  double most = 0;
  for (auto const& mib : dist::all_gather_strings(communicator_, fmt::format("{}", peak_resident_mib())))
    most = std::max(most, std::stod(mib));
  log_->cost(device_.is_cuda() ? std::string() : times_.summary(), times_.steps(), most,
             dist::all_gather_strings(communicator_, runtime_.host()));
}

int Trainer::run() {
  while (counters_.step < config_.training.train_steps && !leaving()) {
    runtime_.at_step(counters_.step + 1);
    train_step();
    read_record(/*latest=*/!device_.is_cuda());
    times_.lap(Stage::other);
    times_.end();
    last_step_ms_ =
        times_.step_ms();  // with the read: on CUDA a step is only launched above, and waits for the last one here
    release_batches();
    show_pictures();
    if (counters_.step % config_.training.checkpoint_every == 0) save();
  }
  save();
  report_cost();
  log_->finish(leaving() ? (stop_ ? "stopped on request" : "stopped at training.max_hours") : "finished");
  return leaving() ? kStoppedOnRequest : 0;
}

}  // namespace

int train(dist::Runtime& runtime, Config const& config, TrainArguments const& arguments) {
  try {
    agree_on_run(runtime, config, arguments);
    Trainer trainer(runtime, config, arguments);
    return trainer.run();
  } catch (c10::OutOfMemoryError const& error) {
    throw std::runtime_error(
        fmt::format("{} (the device's memory is full); lower training.batch_size_per_gpu, keeping "
                    "training.global_batch_size, or set training.grad_checkpoint_every=1",
                    error.what_without_backtrace()));
  }
}

}  // namespace duoflow::launch
