#include "launch/run_log.h"

#include <utility>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

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
  std::unique_ptr<MetricsLog> evaluations;
  TensorBoardWriter curves;
  Progress progress;
  RankTimes ranks;
  BalanceWatch balance;
  bool said_idle = false;

  State(std::string const& folder, Config const& c, LineOptions const& options, std::int64_t step)
      : config(c),
        run(folder),
        line(options),
        metrics(folder + "/metrics.jsonl", step),
        curves(folder, step),
        progress(c.training.train_steps, step),
        ranks(options.size),
        balance(watches_balance(c) ? c.flow.balance_hint_every : 0) {
    if (c.training.eval_every > 0) evaluations = std::make_unique<MetricsLog>(folder + "/evaluation.jsonl", step);
  }
};

namespace {

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
  if (numbers.own[kGradNorm] == 0 && numbers.own[kSkipped] == 0 && !std::exchange(state_->said_idle, true))
    log_warning(fmt::format("step {}: the gradient's norm is 0 (nothing learns: the losses have no weight, or what trains cannot reach them, "
                            "as behind a frozen editor_velocity_head that is still zero); see training.freeze and the loss weights",
                            numbers.step));
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
  state_->progress.update(
      numbers.step, line.at("total_loss").get<double>(), line.at("samples_per_s").get<double>(),
      std::isfinite(line.at("psnr").get<double>()) ? fmt::format("psnr {:.2f}", line.at("psnr").get<double>()) : "");
}

void RunLog::skipped(StepNumbers const& numbers) {
  if (!state_) return;
  auto const& config = state_->config;
  auto const size = state_->line.size;
  // Among the samples that are not skipped the step's lie side by side.
  auto const skipped = skipped_positions(config);
  auto const number_of = [&](std::int64_t position) {
    return static_cast<std::int64_t>(skipped.kept_before(static_cast<std::uint64_t>(position)));
  };
  auto const position_of = [&](std::int64_t number) { return skipped.position(static_cast<std::uint64_t>(number)); };
  auto const start = number_of(numbers.samples) - plan_batches(config.training, config.dist, 0, size).global_batch;
  std::string where = fmt::format("the gradient's norm is {}, samples {} to {} of the order", numbers.own[kGradNorm],
                                  position_of(start), numbers.samples - 1);
  for (int rank = 0; rank < size; ++rank) {
    auto const position =
        numbers.statistics[static_cast<std::size_t>(kFirstPerRank + kPerRank * rank + kFirstBadPosition)];
    if (position == 0) continue;
    auto const plan = plan_batches(config.training, config.dist, rank, size);
    auto const first = static_cast<std::int64_t>(position) - 1;
    auto const offset = (number_of(first) - start) - plan.first;  // in this rank's part of the step
    auto const count = std::min(plan.micro_batch, plan.samples - offset);
    where = fmt::format("a loss is not finite on rank {}, samples {} to {} of the order", rank, first,
                        position_of(number_of(first) + count - 1));
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

void RunLog::evaluation(std::int64_t step, Validation::Score const& score) {
  if (!state_) return;
  state_->evaluations->write(
      {{"step", step}, {"psnr", score.psnr}, {"psnr_masked", score.psnr_masked}, {"pairs", score.pairs}});
  state_->curves.scalar("eval_psnr", step, score.psnr);
  if (std::isfinite(score.psnr_masked)) state_->curves.scalar("eval_psnr_masked", step, score.psnr_masked);
  state_->curves.flush();
  log_info(fmt::format("step {}: {} held-out pairs edited, psnr {:.2f} masked, {:.2f} full", step, score.pairs,
                       score.psnr_masked, score.psnr));
}

std::map<std::int64_t, double> RunLog::evaluations() const {
  std::map<std::int64_t, double> scores;
  if (!state_ || !state_->evaluations) return scores;
  std::ifstream file(state_->run + "/evaluation.jsonl");
  for (std::string line; std::getline(file, line);) {
    auto json = nlohmann::json::parse(line, nullptr, false);
    if (!json.is_object() || !json["step"].is_number_integer()) continue;  // cut short by a crash
    auto const& value = json["psnr_masked"].is_null() ? json["psnr"] : json["psnr_masked"];
    if (value.is_number()) scores[json["step"].get<std::int64_t>()] = value.get<double>();
  }
  return scores;
}

void RunLog::checkpoint(dist::SaveOutcome const& outcome) {
  if (!state_) return;
  auto const mib = static_cast<double>(outcome.bytes) / (1 << 20);
  log_info(fmt::format("checkpoint {} (training held {:.1f} ms, on disk after {:.0f} ms, {:.1f} MiB, {:.0f} MiB/s)",
                       outcome.folder, outcome.held_ms, outcome.durable_ms, mib, 1e3 * mib / outcome.durable_ms));
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
