#include "launch/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <optional>

#include <sys/resource.h>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <fmt/format.h>

#include "data/error.h"
#include "data/folder_lock.h"
#include "data/order/sample_log.h"
#include "dist/error.h"
#include "launch/batches.h"
#include "launch/attention_choice.h"
#include "launch/captured_update.h"
#include "launch/collapse_guard.h"
#include "launch/disk_space.h"
#include "launch/logging.h"
#include "launch/loss_weights.h"
#include "launch/model_setup.h"
#include "launch/profile/profile.h"
#include "launch/run_agreement.h"
#include "launch/run_log.h"
#include "launch/run_setup.h"
#include "launch/run_state.h"
#include "launch/saver.h"
#include "launch/step_record.h"
#include "launch/step_times.h"
#include "launch/stop_file.h"
#include "launch/training_data.h"
#include "launch/update.h"
#include "launch/validation.h"

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

class Trainer : private StepSource {
 public:
  Trainer(dist::Runtime& runtime, Config const& config, TrainArguments const& arguments)
      : runtime_(runtime),
        config_(config),
        device_(choose_device(config.dist.device)),
        communicator_(runtime.communicator(device_.is_cuda() ? dist::Device::cuda : dist::Device::cpu)),
        own_stream_(device_, dist::StreamPriority::ordinary),
        on_own_stream_(config.training.cuda_graph ? own_stream_.unordered_scope() : std::nullopt),
        checkpoints_(arguments.run + "/checkpoints"),
        resume_from_(find_checkpoint(communicator_, checkpoints_, arguments.resume)),
        model_(starting_model()),
        plan_(plan_batches(config.training, config.dist, communicator_.rank(), communicator_.size())),
        networks_(load_networks(config, device_)),
        update_(communicator_, model_, config, plan_, device_, 1e-8, networks_.networks),
        records_(communicator_.size(), device_),
        encoding_(model::light_encoding_from_string(config.data.light_encoding)),
        beside_(device_),
        guard_(config),
        saver_(communicator_, checkpoints_, config_.training, device_.is_cuda()),
        stop_file_(communicator_.rank() == 0 ? config.training.stop_file : "") {
    open(arguments);
  }

  int run();

 private:
  model::SceneModel starting_model() const;
  void open(TrainArguments const& arguments);
  void capture_if_possible(bool profiles);
  void set_later_checkpoints_aside(std::int64_t step);
  void resume(std::string const& folder, std::string const& run);
  // What every rank finds alike is said by one.
  void warn_once(std::string const& text) const {
    if (communicator_.rank() == 0) log_warning(text);
  }

  void train_step();
  MicroBatch joint(std::int64_t) override;
  ReconstructionMicroBatch reconstruction(std::int64_t) override;
  at::Tensor flags() override;
  void lap(Stage stage, double waited_ms) override { times_.lap(stage, waited_ms); }
  void record(Update::Result const& result);
  data::Batch next_batch();
  at::Tensor first_sample_of(data::Batch const& batch) const;
  void release_batches();

  RunTensors run_tensors() { return {model_, update_.buffer(), update_.optimizer(), update_.weighting()}; }
  void read_record(bool latest);
  void watch_latents(StepNumbers const& numbers);
  void drain();
  void check_room();
  void save(bool last);
  void log_checkpoints();
  void validate();
  void show_pictures();
  void report_cost();
  void show_profile();
  bool leaving() const { return stop_ || time_up_; }

  dist::Runtime& runtime_;
  Config config_;
  at::Device device_;
  dist::Communicator communicator_;
  dist::SideStream own_stream_;                    // of the whole run, if its steps are to be captured:
  std::optional<c10::StreamGuard> on_own_stream_;  // the default stream cannot record
  std::string checkpoints_, resume_from_;  // RUN/checkpoints; the checkpoint to go on from, "": none
  model::SceneModel model_;
  BatchPlan plan_;
  LoadedNetworks networks_;
  Update update_;
  std::optional<CapturedUpdate> captured_;  // how update_ is run, where that can be and is asked for
  StepRecords records_;
  model::LightEncoding encoding_;
  BatchesBeside beside_;
  std::unique_ptr<TrainingData> data_;
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<Validation> validation_;
  std::unique_ptr<StepProfile> profile_;  // on rank 0, until it is done
  std::optional<data::SampleLog> samples_log_;

  CollapseGuard guard_;
  Counters counters_;
  std::vector<data::Batch> held_,
      held_before_;                     // batches of this step and the last: a copy may still read their memory
  at::Tensor picture_, target_;         // the last micro-step's, for images/
  std::optional<StepNumbers> pending_;  // waits for the next step's statistics
  double data_wait_ms_ = 0, last_step_ms_ = 0, last_save_ms_ = 0, last_data_wait_ms_ = 0, last_comm_wait_ms_ = 0;
  StepTimes times_;
  Saver saver_;
  StopFile stop_file_;
  bool stop_ = false, time_up_ = false;
  Clock::time_point started_ = Clock::now();
};

model::SceneModel Trainer::starting_model() const {
  auto model = make_model(config_, device_, !resume_from_.empty());
  agree_on_weights(communicator_, runtime_.host(), model);
  return model;
}

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
  agree_on_data(communicator_, runtime_.host(), joined_paths(arguments.data), data_->fingerprint());
  counters_.data_fingerprint = data_->fingerprint();
  if (folder.empty())
    set_latent_statistics(communicator_, model_, *data_);
  else
    resume(folder, arguments.run);
  agree_on_weights(communicator_, runtime_.host(), model_);  // also what a checkpoint or the data brought
  agree_on_loss_networks(communicator_, runtime_.host(), networks_.fingerprint);
  counters_.global_batch = plan_.global_batch;
  counters_.loss_networks = networks_.fingerprint;
  if (arguments.resume != "auto") set_later_checkpoints_aside(folder.empty() ? -1 : step);
  for (auto const& data_folder : data_->folders())
    if (data_folder.pairs) check_producer(config_, model_, data_folder, communicator_.rank() == 0);
  auto const& pairs = data_->folders().front().pairs;  // the folders' samples are alike
  if (pairs && config_.training.num_target_views > pairs->targets)
    warn_once(fmt::format("training.num_target_views = {}, the pairs have {}: all of them are rendered",
                          config_.training.num_target_views, pairs->targets));
  bool const renders = config_.objective != "joint" || renders_at_all(config_);
  LineOptions const line{loss_options(config_).lambda_v,
                         renders ? loss_options(config_).lambda_r : 0,
                         communicator_.size(),
                         config_.objective == "joint",
                         config_.training.lpips_loss_weight > 0,
                         config_.training.perceptual_loss_weight > 0};
  check_room();  // before anything of a run that may not begin is written
  log_ = std::make_unique<RunLog>(arguments.run, config_, communicator_.rank(), line, counters_.step);
  if (config_.training.eval_every > 0 && config_.objective == "joint")
    validation_ = std::make_unique<Validation>(config_, model_, device_);
  saver_.go_on(log_->evaluations());
  log_->start(data_->samples(), plan_.global_batch, update_.buffer().size(), device_.str());
  if (!data_->order().empty() && communicator_.rank() == 0) log_info(data_->order());
  auto const attention = choose_attention(communicator_, config_, attention_shape(config_, plan_.micro_batch), device_);
  if (!attention.empty() && communicator_.rank() == 0) log_info(attention);
  if (config_.training.cuda_graph) capture_if_possible(arguments.profile > 0);
  if (arguments.profile > 0 && communicator_.rank() == 0)
    profile_ = std::make_unique<StepProfile>(arguments.run + "/profile", arguments.profile, device_, config_.model.compute);
  if (config_.data.log_samples)
    samples_log_.emplace(fmt::format("{}/samples/rank_{:05d}.tsv", arguments.run, communicator_.rank()));
}

void Trainer::capture_if_possible(bool profiles) {
  auto const reason = why_not_captured(config_, communicator_, device_, profiles);
  if (reason.empty())
    captured_.emplace(update_, config_, plan_, communicator_.size() == 1, dist::make_cuda_graph,
                      [this](LogLevel level, std::string const& text) {
                        if (communicator_.rank() == 0) log_once(level, text, text);
                      });
  else
    warn_once(fmt::format("training.cuda_graph: steps are not captured: {}", reason));
}

// What the end of the run would otherwise run into. On rank 0, which names the files.
void Trainer::check_room() {
  if (communicator_.rank() != 0) return;
  if (!config_.training.stop_file.empty() && dist::path_exists(config_.training.stop_file))
    throw ConfigError(
        fmt::format("training.stop_file {} is there already (the run would end at once); remove it, or give another",
                    config_.training.stop_file));
  std::uint64_t bytes = 0;
  for (auto const& [name, tensor] : model_tensors(model_)) bytes += static_cast<std::uint64_t>(tensor.nbytes());
  auto const kept = update_.optimizer().average().defined() ? 3U : 2U;  // the moments, and the average
  bytes += kept * static_cast<std::uint64_t>(update_.buffer().parameters().nbytes());
  auto const warning = check_disk_space(checkpoints_, bytes, config_.training.keep_last);
  if (!warning.empty()) log_warning(warning);
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
  counters_ = unpack_run(dist::read_checkpoint(folder), run_tensors(), config_, data_->fingerprint(), &changes);
  update_.set_schedule_ahead(counters_.schedule_ahead);
  guard_ = CollapseGuard(config_, counters_.first_latent_std);
  std::error_code ignored;  // another run's checkpoint is none of this run's
  if (std::filesystem::equivalent(std::filesystem::path(folder).parent_path(), run + "/checkpoints", ignored))
    saver_.resumed_at(counters_.step);
  auto const others = changes_beside_config(counters_, plan_.global_batch, networks_.fingerprint);
  changes.insert(changes.end(), others.begin(), others.end());
  log_info(fmt::format("resumed from {} (step {})", folder, counters_.step));
  for (auto const& change : changes) warn_once(fmt::format("changed since the checkpoint: {}", change));
}

// ---- training: launch/update.cpp holds the step itself

void Trainer::train_step() {
  data_wait_ms_ = 0;
  times_.begin();
  auto const result = captured_ ? captured_->run(counters_.step, *this) : update_.run(counters_.step, *this);
  // ---- only diagnostics
  record(result);
  last_data_wait_ms_ = data_wait_ms_;
  last_comm_wait_ms_ = times_.ms(Stage::communication);
}

MicroBatch Trainer::joint(std::int64_t) {
  auto const batch = next_batch();
  RECORD_USER_SCOPE("batch to device");
  return {beside_([&] { return joint_batch(batch, data_->source(), config_, encoding_, device_); }),
          first_sample_of(batch)};
}

ReconstructionMicroBatch Trainer::reconstruction(std::int64_t) {
  auto const batch = next_batch();
  RECORD_USER_SCOPE("batch to device");
  return {beside_([&] { return reconstruction_batch(batch, data_->source(), device_); }), first_sample_of(batch)};
}

at::Tensor Trainer::first_sample_of(data::Batch const& batch) const {
  return sample_number(positions_of(batch).front(), device_);
}

at::Tensor Trainer::flags() {
  // This step, the one before all ranks know (flags travel with a step), and the last checkpoint come before the limit.
  double const max_ms = config_.training.max_hours * 3.6e6;
  StepFlags const flags{runtime_.stop_requested() || stop_file_.there(),
                        max_ms > 0 && ms_since(started_) + 2 * last_step_ms_ + last_save_ms_ > max_ms,
                        last_step_ms_,
                        last_data_wait_ms_,
                        last_comm_wait_ms_,
                        saver_.report()};
  return flag_slots(flags, communicator_, device_);
}

// ---- only diagnostics, the log and the checkpoints below
// ----------------------------------------------------------------

void Trainer::record(Update::Result const& result) {
  ++counters_.step;
  counters_.forward_passes += plan_.micro_steps;
  counters_.samples = data_->position_after_step(counters_.samples);
  picture_ = result.picture;
  target_ = result.target;
  auto const number = [](at::Tensor const& scalar) { return scalar.to(at::kDouble); };
  auto const own = at::stack({number(result.weights.velocity), number(result.weights.render), number(result.norm),
                              number(result.rate), number(result.skipped)});
  records_.push(counters_.step, counters_.samples, result.statistics, own, times_.ms(Stage::communication));
}

data::Batch Trainer::next_batch() {
  RECORD_USER_SCOPE("data");
  auto batch = data_->next();
  data_wait_ms_ += data_->waited_ms();
  if (samples_log_) samples_log_->write(batch, data_->source());
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
  if (numbers->own[kSkipped] != 0) log_->skipped(*numbers);
  watch_latents(*numbers);
  saver_.watch(numbers->statistics);
  log_checkpoints();
  pending_ = std::move(numbers);
  if (counters_.skips_in_a_row >= config_.training.max_skips_in_a_row) {
    log_->step(*pending_, pending_->statistics);  // the last line too: with its own late values, there are no others
    throw std::runtime_error(fmt::format(
        "{} updates in a row were skipped, the last at step {} (losses or gradients are not finite or far out of "
        "bounds: "
        "training has diverged or the data are bad); lower training.lr, or resume from an earlier checkpoint",
        counters_.skips_in_a_row, pending_->step));
  }
}

// On every rank: the numbers are the same on all, and so is where the guard ends the run.
void Trainer::watch_latents(StepNumbers const& numbers) {
  auto const& statistics = numbers.statistics;
  auto const warning = guard_.watch(numbers.step, statistics[model::kLatentStd] / statistics[model::kSamples]);
  if (!warning.empty()) warn_once(warning);
  counters_.first_latent_std = guard_.first();
}

// One more exchange, so that the last step's line can be written. Collective.
void Trainer::drain() {
  read_record(/*latest=*/false);
  read_record(/*latest=*/true);
  if (!pending_) return;
  log_->step(*pending_, update_.drain(flags()));
  pending_.reset();
}

// Collective. The lines up to this step are written, and the weighting has learnt what the step measured, before.
void Trainer::save(bool last) {
  drain();
  update_.wait_for_parameters();
  saver_.save(counters_.step, [this] { return pack_run(run_tensors(), counters_, config_); }, last);
  log_checkpoints();
}

void Trainer::log_checkpoints() {
  for (auto const& outcome : saver_.take_completed()) {
    last_save_ms_ = outcome.durable_ms;
    log_->checkpoint(outcome);
  }
}

// Collective.
void Trainer::validate() {
  update_.wait_for_parameters();
  auto const score = validation_->run(communicator_);
  log_->evaluation(counters_.step, score);
  saver_.measured(counters_.step, std::isfinite(score.psnr_masked) ? score.psnr_masked : score.psnr);
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

void Trainer::show_profile() {
  auto const table = profile_->end_step();
  if (table.empty()) return;
  log_info(fmt::format("profile, also in {} with a trace:\n{}", profile_->folder(), table));
  profile_.reset();
}

int Trainer::run() {
  while (counters_.step < config_.training.train_steps && !leaving()) {
    runtime_.at_step(counters_.step + 1);
    if (profile_) profile_->begin_step();
    train_step();
    read_record(/*latest=*/!device_.is_cuda());
    times_.lap(Stage::other);
    times_.end();
    if (profile_) show_profile();
    last_step_ms_ =
        times_.step_ms();  // with the read: on CUDA a step is only launched above, and waits for the last one here
    release_batches();
    show_pictures();
    if (counters_.step % config_.training.checkpoint_every == 0) save(/*last=*/false);
    if (validation_ && counters_.step % config_.training.eval_every == 0) validate();
  }
  save(/*last=*/true);
  if (profile_) log_warning("the run ended before --profile had the steps that it needs (those asked for and five more)");
  report_cost();
  log_->finish(leaving() ? (stop_ ? "stopped on request" : "stopped at training.max_hours") : "finished");
  return leaving() ? kStoppedOnRequest : 0;
}

}  // namespace

int train(dist::Runtime& runtime, Config const& config, TrainArguments const& arguments) {
  agree_on_run(runtime, config, arguments);
  std::optional<data::FolderLock> lock;  // of rank 0: the kernel frees it however the process ends
  if (runtime.rank() == 0) {
    lock.emplace(arguments.run, data::FolderLock::WithoutLocks::go_on);
    if (!lock->held())
      log_warning(fmt::format("{}: its file system has no locks, so a second run on this folder would not be noticed",
                              arguments.run));
  }
  Trainer trainer(runtime, config, arguments);
  return trainer.run();
}

}  // namespace duoflow::launch
