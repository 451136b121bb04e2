// duoflow step: one step (or N) of the config's objective on a batch given as tensors, every intermediate and gradient
// written out. What agreement with other implementations is measured by.

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/checkpoint.h"
#include "dist/error.h"
#include "dist/flat_buffer.h"
#include "dist/gradient_norm.h"
#include "dist/sharded_adamw.h"
#include "launch/batches.h"
#include "launch/commands/commands.h"
#include "launch/logging.h"
#include "launch/loss_weights.h"
#include "launch/model_setup.h"
#include "launch/output_file.h"
#include "launch/parameter_rules.h"
#include "launch/run_setup.h"
#include "launch/run_state.h"
#include "launch/schedule.h"
#include "launch/weights_file.h"
#include "model/joint_step.h"
#include "model/metrics.h"
#include "model/rays.h"

namespace duoflow::launch {
namespace {

struct StepArguments {
  std::string config, weights, batch, out;
  std::int64_t steps = 0;
  std::vector<std::string> overrides;
};

constexpr std::int64_t kAny = -1;

std::string spell_shape(at::IntArrayRef shape) {
  std::string text;
  for (auto const size : shape) text += (text.empty() ? "" : ",") + (size == kAny ? "any" : std::to_string(size));
  return "[" + text + "]";
}

enum class Range { finite, unit };

class BatchFile {
 public:
  BatchFile(std::string path, at::Device device) : path_(std::move(path)) {
    for (auto const& [name, tensor] : dist::read_safetensors(path_)) tensors_[name] = tensor.to(device, at::kFloat);
  }
  bool has(std::string const& name) const { return tensors_.contains(name); }
  at::Tensor get(std::string const& name, std::vector<std::int64_t> const& shape, Range range = Range::finite) {
    auto const found = tensors_.find(name);
    if (found == tensors_.end())
      throw dist::CheckpointError(
          fmt::format("{}: tensor {} is missing (the batch of `step` needs it); add it", path_, name));
    auto const sizes = found->second.sizes();
    bool const fits = std::equal(sizes.begin(), sizes.end(), shape.begin(), shape.end(),
                                 [](auto has, auto wanted) { return wanted == kAny || has == wanted; });
    if (!fits)
      throw dist::CheckpointError(
          fmt::format("{}: {} has shape {} (the other tensors and the config ask for {}); make them agree", path_, name,
                      spell_shape(sizes), spell_shape(shape)));
    if (read_.insert(name).second) check_range(name, found->second, range);
    return found->second;
  }
  void report_unread() const {
    for (auto const& [name, tensor] : tensors_)
      if (!read_.contains(name)) log_info(fmt::format("{}: tensor {} is not used", path_, name));
  }

 private:
  void check_range(std::string const& name, at::Tensor const& tensor, Range range) const {
    if (!at::isfinite(tensor).all().item<bool>())
      throw dist::CheckpointError(fmt::format(
          "{}: {} holds numbers that are not finite (losses and gradients would not be either); correct them", path_,
          name));
    if (range == Range::finite) return;
    double const low = tensor.min().item<double>(), high = tensor.max().item<double>();
    if (low < 0 || high > 1)
      log_warning(
          fmt::format("{}: {} holds numbers from {} to {}, the contract of `step` is [0, 1]", path_, name, low, high));
  }

  std::string path_;
  std::map<std::string, at::Tensor> tensors_;
  std::set<std::string> read_;
};

// What the objective uses must be in the weights: anything else would be random.
void load_step_weights(model::SceneModel& model, StepArguments const& arguments, Config const& config) {
  auto missing = load_weights(model, arguments.weights, WeightsChoice::trained);
  std::erase_if(missing, [&](std::string const& name) {
    for (auto const& parameter : model.parameters())
      if (parameter.name == name)
        return !parameter.trainable || (config.objective == "reconstruction" && parameter.part == model::Part::editor);
    return false;
  });
  if (!missing.empty())
    throw dist::CheckpointError(fmt::format(
        "{}: {} tensors of the model are missing, the first is {} (their values would be random); give all of them",
        arguments.weights, missing.size(), missing.front()));
}

// The reference's data: LDR and log map follow the direction map's size.
at::Tensor read_light(BatchFile& batch, std::int64_t samples) {
  auto const direction = batch.get("env_dir", {samples, kAny, 3, kAny, kAny});
  auto like_direction = [&](std::string const& name) {
    auto map = batch.get(name, {samples, direction.size(1), 3, kAny, kAny});
    if (map.sizes() == direction.sizes()) return map;
    auto const resized =
        at::upsample_bilinear2d(map.flatten(0, 1), {direction.size(3), direction.size(4)}, /*align_corners=*/false);
    return resized.view(direction.sizes());
  };
  return at::cat({like_direction("env_ldr"), like_direction("env_hdr"), direction}, 2);
}

struct Views {
  at::Tensor image, rays;  // [B,V,3,H,W], [B,V,6,H,W]
};

Views read_views(BatchFile& batch, std::string const& prefix, std::int64_t samples) {
  auto const image = batch.get(prefix + "_image", {samples, kAny, 3, kAny, kAny}, Range::unit);
  auto const views = image.size(1);
  auto const c2w = batch.get(prefix + "_c2w", {samples, views, 4, 4});
  auto const fxfycxcy = batch.get(prefix + "_fxfycxcy", {samples, views, 4});
  return {image, model::pluecker_rays(c2w, fxfycxcy, image.size(3), image.size(4))};
}

class StepRun {
 public:
  StepRun(Config const& config, StepArguments const& arguments, at::Device device)
      : config_(config),
        weights_(arguments.weights),
        model_(config.model, config.training.seed),
        batch_(arguments.batch, device),
        weighting_(model::make_weighting(weighting_options(config), device)),
        losses_(losses(config, device)),
        step_(model_, losses_, *weighting_) {
    load_step_weights(model_, arguments, config);
    model_.to(device);
    for (auto const part : {model::Part::reconstructor, model::Part::editor, model::Part::renderer})
      model_.set_trainable(part, true);
  }

  void run(std::int64_t steps, std::string const& out) {
    auto const weighting_before = weighting_state();
    once(0);
    put_weighting_back(weighting_before, at::ones({}, at::kBool));  // no step of a run
    batch_.report_unread();
    // Of frozen parts too: what agreement is measured by should miss none.
    for (auto const& parameter : model_.parameters())
      if (parameter.trainable && parameter.tensor.grad().defined())
        add("grad." + parameter.name, parameter.tensor.grad().clone());
    if (steps > 0) optimize(steps);
    write_output_file(out, outputs_, {});
    log_info(fmt::format("{} tensors written to {}", outputs_.size(), out));
  }

 private:
  static model::JointLossOptions losses(Config const& config, at::Device device) {
    auto options = loss_options(config, load_networks(config, device).networks);
    options.lambda_r = config.flow.render_loss_weight;  // whatever the objective
    return options;
  }

  void add(std::string const& name, at::Tensor const& tensor) {
    outputs_.push_back({name, tensor.detach().to(at::kCPU).contiguous()});
  }

  model::JointBatch inputs() {
    model::JointBatch inputs;
    auto const samples = batch_.get("target_image", {kAny, kAny, 3, kAny, kAny}, Range::unit).size(0);
    auto const target = read_views(batch_, "target", samples);
    inputs.t = model::knows_time(config_.model.editor) ? batch_.get("t", {samples}, Range::unit)
                                                       : at::zeros({samples}, target.image.options());
    if (needs_noise(config_))
      inputs.noise = batch_.get("noise", {samples, config_.model.n_latent_vectors, config_.model.d});
    inputs.target_image = target.image;
    inputs.target_rays = target.rays;
    inputs.env = read_light(batch_, samples);
    if (batch_.has("light_kept")) inputs.light_kept = batch_.get("light_kept", {samples}, Range::unit);
    if (batch_.has("x0") || batch_.has("x1")) {
      std::vector<std::int64_t> const latents = {samples, config_.model.n_latent_vectors, config_.model.d};
      inputs.x0 = batch_.get("x0", latents);
      inputs.x1 = batch_.get("x1", latents);
    } else {
      auto const input = read_views(batch_, "input", samples);
      inputs.input_image = input.image;
      inputs.input_rays = input.rays;
      inputs.relit_image = batch_.get("relit_image", input.image.sizes().vec(), Range::unit);
    }
    return inputs;
  }

  struct Numbers {
    at::Tensor total, velocity, render, psnr;
  };

  static at::Tensor mean(at::Tensor const& sums, model::StatisticSlot slot) {
    return (sums[slot] / sums[model::kSamples]).to(at::kFloat);
  }

  // One forward and backward; the first one's intermediates are the outputs.
  Numbers once(std::int64_t step) {
    return config_.objective == "reconstruction" ? reconstruction_once() : joint_once(step);
  }

  // Stage 1: reconstructor and renderer alone, on the input views' own light.
  Numbers reconstruction_once() {
    auto const target = read_views(batch_, "target", kAny), input = read_views(batch_, "input", target.image.size(0));
    model::RenderLoss const loss(losses_.render);
    at::Tensor sums;
    auto const image =
        model::reconstruction_step(model_, loss, {input.image, input.rays, target.rays, target.image, {}},
                                   target.image.size(0), [&](at::Tensor const& s) { sums = s; });
    auto const render = mean(sums, model::kRenderLoss);
    Numbers const numbers{render, at::zeros_like(render), render, mean(sums, model::kPsnr)};
    if (!outputs_.empty()) return numbers;
    at::NoGradGuard const no_graph;
    add("x0", model_.reconstruct(input.image, input.rays));
    add_picture(image, target.image, numbers, sums);
    add("total_loss", numbers.total);
    return numbers;
  }

  void add_picture(at::Tensor const& image, at::Tensor const& target, Numbers const& numbers, at::Tensor const& sums) {
    add("render", image);
    add("render_loss", numbers.render);
    add("psnr", numbers.psnr);
    add("psnr_batch", -10 * at::log10((image - target).square().mean()));
    if (config_.training.lpips_loss_weight > 0) add("lpips", mean(sums, model::kLpips));
    if (config_.training.perceptual_loss_weight > 0) add("perceptual", mean(sums, model::kPerceptual));
  }

  Numbers joint_once(std::int64_t step) {
    auto const batch = inputs();
    auto const samples = batch.t.size(0);
    at::Tensor sums;
    auto const cut = step_.run_to_cut(batch, step, samples, true, [&](at::Tensor const& s) { sums = s; });
    if (weighting_->observes(model::GradientSpace::at_v_pred_now, step))
      weighting_->observe(step_.bare_squares(cut), at::ones({}, sums.options()));
    auto const weights = step_.combine(sums, step);
    auto cut_sums = at::zeros({3}, sums.options());
    step_.run_from_cut(batch, cut, weights, cut_sums);
    if (cut.render_weight_is_late) scale_renderer_gradients(weights.render);
    last_step_ = {cut_sums, weights, at::zeros({}, sums.options().dtype(at::kBool))};
    auto const lambda_v = config_.flow.velocity_loss_weight, lambda_r = config_.flow.render_loss_weight;
    Numbers numbers;
    numbers.velocity = cut.velocity_loss.mean();
    numbers.render = cut.render_loss.mean();
    numbers.total = lambda_v * weights.velocity * numbers.velocity + lambda_r * weights.render * numbers.render;
    numbers.psnr = mean(sums, model::kPsnr);
    if (!outputs_.empty()) return numbers;
    add("x0", cut.x0);
    add("x1", cut.x1);
    add("x_t", cut.x_t);
    add("velocity", cut.v_pred);
    add("x_hat", cut.x_hat);
    if (cut.image.defined()) add_picture(cut.image, batch.target_image, numbers, sums);
    add("total_loss", numbers.total);
    if (cut.g_velocity.defined()) {
      add("velocity_loss", numbers.velocity);
      add("g_velocity", lambda_v * weights.velocity * cut.g_velocity);
    }
    if (cut.g_render.defined())
      add("g_render", cut.render_weight_is_late ? cut.g_render * weights.render : cut.g_render);
    return numbers;
  }

  // As training does when the statistics have brought it (launch/update.h).
  void observe_last_step(std::int64_t step) {
    if (!last_step_ || !weighting_->observes(model::GradientSpace::at_v_pred, step)) return;
    step_.observe({last_step_->cut_sums[0], last_step_->cut_sums[1]}, last_step_->weights,
                  at::logical_not(last_step_->skipped));
  }

  void scale_renderer_gradients(at::Tensor const& weight) {
    at::NoGradGuard const no_grad;
    for (auto const& parameter : model_.parameters())
      if (parameter.part == model::Part::renderer && parameter.tensor.grad().defined())
        parameter.tensor.grad().mul_(weight);
  }

  // A part that no loss reaches has no gradient and is left alone, weight decay included.
  bool trains(model::Part part) const {
    if (config_.objective == "reconstruction") return part != model::Part::editor;
    if (part == model::Part::editor) return true;
    auto const& t = config_.training;
    if (t.freeze_reconstructor_renderer) return false;
    if (part == model::Part::reconstructor)
      return !batch_.has("x0") && weighting_->cut_rule() != model::CutRule::velocity_alone;
    return renders_at_all(config_);
  }

  // A renderer whose loss has the weight 0 at this step is left alone too.
  std::uint32_t idle_sections(std::int64_t step) const {
    bool const idle = config_.objective == "joint" && weighting_->known_render_weight(step).value_or(1) == 0;
    return idle ? std::uint32_t{1} << static_cast<int>(model::Part::renderer) : 0;
  }

  std::vector<at::Tensor> weighting_state() const {
    std::vector<at::Tensor> copies;
    for (auto const& [name, tensor] : weighting_->state()) copies.push_back(tensor.clone());
    return copies;
  }

  // Where `skip`, as in training.
  void put_weighting_back(std::vector<at::Tensor> const& before, at::Tensor const& skip) {
    auto const state = weighting_->state();
    for (std::size_t i = 0; i < state.size(); ++i)
      state[i].second.copy_(at::where(skip.to(state[i].second.device()), before[i], state[i].second));
  }

  // Weights given as a checkpoint bring their optimizer's state and their place in the schedule.
  Counters resume(RunTensors const& run) const {
    if (is_weights_file(weights_file_at(weights_))) return {};
    auto const state = dist::read_checkpoint(dist::resolve_checkpoint(weights_));
    bool const weights_only = std::none_of(state.state.begin(), state.state.end(),
                                           [](auto const& named) { return named.name.starts_with("exp_avg."); });
    if (weights_only) return {};
    std::vector<std::string> changes;
    auto const data = nlohmann::json::parse(state.counters_json).at("data_fingerprint").get<std::string>();
    auto const counters = unpack_run(state, run, config_, data, &changes);
    for (auto const& change : changes) log_info(fmt::format("changed since the checkpoint: {}", change));
    log_info(fmt::format("steps go on from step {} of {}", counters.step, weights_));
    return counters;
  }

  // Optimizer steps with the config's schedule, groups and clip, from the weights given.
  void optimize(std::int64_t steps) {
    for (auto const part : {model::Part::reconstructor, model::Part::editor, model::Part::renderer})
      model_.set_trainable(part, trains(part));
    freeze_by_rules(model_, config_);
    auto const groups = parameter_groups(model_, config_);
    std::vector<dist::TrainableParameter> trainable;
    for (auto const& parameter : model_.forward_order())
      if (parameter.trainable && parameter.tensor.requires_grad())
        trainable.push_back(
            {parameter.name, parameter.tensor, groups.group_of(parameter.name), static_cast<int>(parameter.part)});
    dist::FlatBuffer buffer(std::move(trainable));
    auto const& t = config_.training;
    dist::GradientNorm gradient_norm(buffer);
    dist::ShardedAdamW optimizer(buffer, adamw_options(model_, config_, 1e-8));
    auto const before = resume({model_, buffer, optimizer, *weighting_});
    ScheduleOptions const schedule{t.lr, t.warmup, t.train_steps, t.scheduler_type, before.schedule_ahead};
    std::vector<at::Tensor> trajectory;
    last_step_.reset();  // the first pass was no step
    for (std::int64_t step = 0; step < steps; ++step) {
      buffer.gradients().zero_();
      observe_last_step(before.step + step);
      auto const weighting_before = weighting_state();
      auto const numbers = once(before.step + step);
      auto const norm = gradient_norm.clip(buffer.gradients(), t.grad_clip_norm);
      auto skip = at::logical_not(at::isfinite(norm));
      if (t.grad_clip_norm > 0 && t.allowed_gradnorm_factor > 0)
        skip = at::logical_or(skip, norm > t.grad_clip_norm * t.allowed_gradnorm_factor);
      optimizer.step(buffer.gradients(), learning_rate(schedule, optimizer.update_count()), skip.to(at::kFloat),
                     idle_sections(before.step + step));
      if (last_step_) last_step_->skipped = skip;
      put_weighting_back(weighting_before, skip);
      trajectory.push_back(
          at::stack({numbers.total, numbers.velocity, numbers.render, numbers.psnr, norm.to(at::kFloat)}));
    }
    add("trajectory", at::stack(trajectory));
    for (auto const& parameter : model_.parameters())
      if (parameter.trainable && (config_.objective == "joint" || parameter.part != model::Part::editor))
        add("param." + parameter.name, parameter.tensor);
  }

  Config const& config_;
  std::string weights_;
  model::SceneModel model_;
  BatchFile batch_;
  std::unique_ptr<model::Weighting> weighting_;
  model::JointLossOptions losses_;
  model::JointStep step_;
  struct Measured {
    at::Tensor cut_sums;
    model::LossWeights weights;
    at::Tensor skipped;
  };
  std::optional<Measured> last_step_;  // for a weighting that balances gradients
  std::vector<dist::NamedTensor> outputs_;
};

}  // namespace

Command add_step(CLI::App& root) {
  auto arguments = std::make_shared<StepArguments>();
  auto* app =
      root.add_subcommand("step", "run one training step on given tensors and write every intermediate and gradient");
  app->add_option("--config", arguments->config, "YAML file")->required();
  app->add_option(
         "--weights", arguments->weights,
         "safetensors or .pt file with the model's state dict, or a checkpoint or run folder, whose optimizer goes on")
      ->required();
  app->add_option("--batch", arguments->batch, "safetensors file with the batch")->required();
  app->add_option("--out", arguments->out, "safetensors file to write")->required();
  app->add_option("--steps", arguments->steps, "also run this many optimizer steps and add trajectory and parameters")
      ->check(CLI::NonNegativeNumber);
  app->add_option("overrides", arguments->overrides, "key=value, after the config file");
  return {app, [arguments](dist::Runtime& runtime) {
            if (runtime.size() > 1) throw ConfigError("step runs as one process; start it without mpirun");
            check_output_file(arguments->out);
            auto const config = load_config(arguments->config, arguments->overrides);
            if (config.flow.weighting == "gradient_balance" && config.flow.gradient_space == "parameters")
              throw ConfigError(
                  "step with weighting = gradient_balance knows gradient_space = v_pred alone (over parameters a step "
                  "runs the editor twice); set the latter");
            configure(runtime, config);
            for (auto const& note : config.notes) log_info(note);
            StepRun(config, *arguments, choose_device(config.dist.device)).run(arguments->steps, arguments->out);
            return 0;
          }};
}

}  // namespace duoflow::launch
