#include "launch/run_log.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "launch/balance_watch.h"
#include "launch/logging.h"
#include "launch/metrics_log.h"
#include "launch/pictures.h"
#include "launch/progress.h"
#include "launch/rank_times.h"
#include "launch/tensorboard.h"

namespace duoflow::launch {

namespace {

// Losses that train different parts need no balance.
bool watches_balance(Config const& config) {
  return config.objective == "joint" && config.flow.weighting != "separate_graphs";
}

}  // namespace

struct RunLog::State {
  Config config;
  std::string run;
  LineOptions line;
  MetricsLog metrics;
  TensorBoardWriter curves;
  Progress progress;
  RankTimes ranks;
  BalanceWatch balance;
  double first_latent_std = 0;  // of this start; 0: not seen yet
  bool collapse_said = false;

  State(std::string const& folder, Config const& c, LineOptions const& options, std::int64_t step)
      : config(c),
        run(folder),
        line(options),
        metrics(folder + "/metrics.jsonl", step),
        curves(folder, step),
        progress(c.training.train_steps, step),
        ranks(options.size),
        balance(watches_balance(c) ? c.flow.balance_hint_every : 0) {}
};

namespace {

constexpr double kCollapsed = 0.1;  // of the first standard deviation

void write_text(std::string const& path, std::string const& text) {
  std::ofstream file(path + ".tmp");
  file << text;
  file.close();
  std::filesystem::rename(path + ".tmp", path);
}

}  // namespace

RunLog::RunLog(std::string const& run, Config const& config, int rank, LineOptions const& line, std::int64_t step) {
  if (rank != 0) return;
  std::filesystem::create_directories(run + "/images");
  write_text(run + "/config.yaml", effective_yaml(config));
  state_ = std::make_unique<State>(run, config, line, step);
}

RunLog::~RunLog() = default;

void RunLog::start(std::uint64_t samples, std::int64_t global_batch, std::int64_t parameters,
                   std::string const& device) {
  if (!state_) return;
  for (auto const& note : state_->config.notes) log_info(note);
  log_info(fmt::format("{}: {} samples, global batch {} over {} rank(s), {:.2f} M trainable parameters on {}, {} steps",
                       state_->config.objective, samples, global_batch, state_->line.size,
                       static_cast<double>(parameters) / 1e6, device, state_->config.training.train_steps));
}

void RunLog::step(StepNumbers const& numbers, std::vector<double> const& next) {
  if (!state_) return;
  if (auto const hint = state_->balance.add(loss_balance(numbers, next, state_->line))) log_info("hint: " + *hint);
  bool const print =
      numbers.step % state_->config.training.print_every == 0 || numbers.step == state_->config.training.train_steps;
  if (!print && numbers.own[kSkipped] == 0) return;
  auto const line = metrics_line(numbers, next, state_->line);
  state_->ranks.add(next);
  state_->metrics.write(line);
  for (auto const& [name, value] : line.items())
    if (value.is_number() && name != "step" && std::isfinite(value.get<double>()))
      state_->curves.scalar(name, numbers.step, value.get<double>());
  state_->curves.flush();
  if (line.at("latent_std").is_number()) watch_latents(line.at("latent_std").get<double>());
  state_->progress.update(
      numbers.step, line.at("total_loss").get<double>(), line.at("samples_per_s").get<double>(),
      std::isfinite(line.at("psnr").get<double>()) ? fmt::format("psnr {:.2f}", line.at("psnr").get<double>()) : "");
}

// The guard of reference/method.md 1.5 #3: a trainable reconstructor can make L_v small by making all latents alike.
void RunLog::watch_latents(double latent_std) {
  if (!(latent_std > 0)) return;
  if (state_->first_latent_std == 0) state_->first_latent_std = latent_std;
  if (state_->collapse_said || latent_std > kCollapsed * state_->first_latent_std) return;
  state_->collapse_said = true;
  log_warning(
      fmt::format("the latents' standard deviation has fallen from {:.3g} to {:.3g} (the reconstructor makes all "
                  "scenes alike, which makes the velocity loss small); raise render_loss_weight, or set "
                  "training.freeze_reconstructor_renderer=true",
                  state_->first_latent_std, latent_std));
}

void RunLog::skipped(StepNumbers const& numbers) {
  if (!state_) return;
  auto const& config = state_->config;
  auto const size = state_->line.size;
  auto const whole = plan_batches(config.training, config.dist, 0, size).global_batch;
  std::string where = fmt::format("the gradient's norm is {}, samples {} to {} of the order", numbers.own[kGradNorm],
                                  numbers.samples - whole, numbers.samples - 1);
  for (int rank = 0; rank < size; ++rank) {
    auto const position =
        numbers.statistics[static_cast<std::size_t>(kFirstPerRank + kPerRank * rank + kFirstBadPosition)];
    if (position == 0) continue;
    auto const plan = plan_batches(config.training, config.dist, rank, size);
    auto const first = static_cast<std::int64_t>(position) - 1;
    auto const offset = (first - (numbers.samples - whole)) - plan.first;  // in this rank's part of the step
    auto const count = std::min(plan.micro_batch, plan.samples - offset);
    where =
        fmt::format("a loss is not finite on rank {}, samples {} to {} of the order", rank, first, first + count - 1);
    break;
  }
  log_warning(fmt::format("step {} skipped: {}", numbers.step, where));
}

void RunLog::pictures(std::int64_t step, at::Tensor const& image_BT3HW, at::Tensor const& target_BT3HW) {
  if (!state_ || !image_BT3HW.defined()) return;
  std::vector<std::vector<data::Image8>> rows;
  for (std::int64_t b = 0; b < std::min<std::int64_t>(4, image_BT3HW.size(0)); ++b)
    rows.push_back({to_image(image_BT3HW[b][0]), to_image(target_BT3HW[b][0])});
  data::write_png(fmt::format("{}/images/step_{:09d}.png", state_->run, step),
                  picture_grid(rows, {"rendered", "target"}, {}, 2));
}

void RunLog::checkpoint(std::string const& folder, double ms) {
  if (!state_) return;
  log_info(fmt::format("checkpoint {} ({:.0f} ms)", folder, ms));
}

void RunLog::cost(std::string const& split, std::int64_t steps, double peak_mib,
                  std::vector<std::string> const& hosts) {
  if (!state_) return;
  state_->progress.finish();
  if (!split.empty()) log_info(fmt::format("step times of rank 0 (mean of {} steps): {}", steps, split));
  auto const slowest = state_->ranks.summary(hosts);
  if (!slowest.empty()) log_info(slowest);
  log_info(fmt::format("peak resident memory of a rank: {:.0f} MiB", peak_mib));
}

void RunLog::finish(std::string const& how) {
  if (!state_) return;
  state_->progress.finish();
  log_info(fmt::format("{}: {}", how, state_->run));
}

}  // namespace duoflow::launch
