#include "launch/run_setup.h"

#include <set>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include "data/error.h"
#include "dist/checkpoint/checkpoint.h"
#include "dist/error.h"
#include "launch/batches.h"
#include "launch/editor_start.h"
#include "launch/logging.h"
#include "launch/model_setup.h"
#include "launch/parameter_rules.h"

namespace duoflow::launch {

bool trains(Config const& config, model::Part part) {
  if (config.objective == "reconstruction") return part != model::Part::editor;
  if (part == model::Part::editor) return true;
  if (config.training.freeze_reconstructor_renderer) return false;
  // Cached latents leave no way to the reconstructor; a renderer that no loss reaches would only decay.
  return part == model::Part::reconstructor ? config.latents == "online" : renders_at_all(config);
}

std::set<model::Part> running_parts(Config const& config) {
  if (config.objective == "reconstruction") return {model::Part::reconstructor, model::Part::renderer};
  std::set<model::Part> parts = {model::Part::editor};
  if (config.latents == "online") parts.insert(model::Part::reconstructor);
  if (renders_at_all(config)) parts.insert(model::Part::renderer);
  return parts;
}

bool renders_at_all(Config const& config) {
  return config.flow.render_loss_weight > 0 && !loss_options(config).render.empty();
}

model::JointLossOptions loss_options(Config const& config, model::LossNetworks const& networks) {
  auto const& t = config.training;
  bool const renders = config.objective != "joint" || config.flow.render_loss_weight > 0;  // else no network is needed
  return {
      config.objective == "joint" ? config.flow.velocity_loss_weight : 1,
      config.objective == "joint" ? config.flow.render_loss_weight : 1,
      {t.l2_loss_weight, renders ? t.lpips_loss_weight : 0, renders ? t.perceptual_loss_weight : 0, t.l1_loss_weight,
       t.gradient_loss_weight, t.perceptual_min_t, t.perceptual_crop, t.seed, networks, t.render_view_chunk},
      model::path_of_name(config.flow.path),
      config.flow.path_sigma};
}

void mark_trainable(model::SceneModel& model, Config const& config) {
  for (auto const part : {model::Part::reconstructor, model::Part::editor, model::Part::renderer})
    model.set_trainable(part, trains(config, part));
  freeze_by_rules(model, config);
}

// A part that neither trains nor was given would stay as it was drawn, and everything would be learned around it.
void require_given(model::SceneModel const& model, Config const& config, std::vector<std::string> const& missing) {
  if (config.objective != "joint") return;
  auto const needed = [&](model::Part part) {
    if (part == model::Part::renderer) return config.editor_init == "decoder" || (renders_at_all(config) && !trains(config, part));
    return part == model::Part::reconstructor && config.latents == "online" && !trains(config, part);
  };
  std::set<std::string> const absent(missing.begin(), missing.end());
  for (auto const& parameter : model.parameters())
    if (parameter.trainable && needed(parameter.part) && absent.contains(parameter.name))
      throw ConfigError(fmt::format(
          "training.init_from = {} has no {} ({} and the rest of it would keep random values, and {}); give weights of a whole "
          "stage 1, or train that part with training.freeze_reconstructor_renderer=false",
          config.training.init_from, parameter.part == model::Part::renderer ? "renderer" : "reconstructor", parameter.name,
          trains(config, parameter.part) ? "the editor would start as a copy of them" : "nothing here trains them"));
}

model::SceneModel make_model(Config const& config, at::Device device, bool resumes) {
  model::SceneModel model(config.model, config.training.seed);
  if (!config.training.init_from.empty() && !resumes) {
    auto const missing = load_weights(model, config.training.init_from,
                                      weights_choice(config.training.init_weights, "training.init_weights"));
    require_given(model, config, missing);
    if (!missing.empty())
      log_info(fmt::format("{}: {} tensors not in it keep their initial values (first: {})", config.training.init_from,
                           missing.size(), missing.front()));
  }
  if (!resumes) start_editor(model, config);
  mark_trainable(model, config);
  model.to(device);
  return model;
}

dist::FlatBuffer make_buffer(model::SceneModel const& model, Config const& config, BatchPlan const& plan, int ranks) {
  auto const groups = parameter_groups(model, config);
  std::vector<dist::TrainableParameter> parameters;
  for (auto const& parameter : model.forward_order())
    if (parameter.trainable && parameter.tensor.requires_grad())
      parameters.push_back(
          {parameter.name, parameter.tensor, groups.group_of(parameter.name), static_cast<int>(parameter.part)});
  bool const in_slices = config.dist.zero > 0 || config.dist.gradient_dtype == "bf16";
  auto const slices = config.dist.reproducible ? plan.shards : in_slices ? ranks : 1;
  return dist::FlatBuffer(std::move(parameters), {config.dist.bucket_mib, config.dist.first_bucket_mib, slices});
}

dist::AdamWOptions adamw_options(model::SceneModel const& model, Config const& config, double eps) {
  auto const groups = parameter_groups(model, config);
  auto const& t = config.training;
  return {t.beta1, t.beta2, eps, groups.weight_decay, groups.rate_factor, {t.ema_decay, t.ema_warmup},
          model.options().compute == model::ComputeType::bf16};
}

namespace {

constexpr std::int64_t kBatches = 8, kBatch = 4;

// Both ends of the first samples of the order, encoded as the model is now: [samples, n, d].
at::Tensor first_latents(model::SceneModel const& model, TrainingData const& data) {
  at::NoGradGuard const no_graph;
  auto const device = model.parameters().front().tensor.device();
  auto const schedule = [](std::uint64_t number) { return std::pair(number * kBatch, kBatch); };
  data::Loader loader(data.shared_source(), schedule, kBatch, {});
  std::vector<at::Tensor> latents;
  for (std::int64_t i = 0; i < kBatches; ++i) {
    auto const batch = loader.next();
    auto const pictures = input_pictures(batch, data.source(), device);
    latents.push_back(model.reconstruct(pictures.image, pictures.rays));
    latents.push_back(model.reconstruct(pictures.relit, pictures.rays));
    loader.release(batch);
  }
  return at::cat(latents).to(at::kDouble);
}

}  // namespace

void set_latent_statistics(dist::Communicator const& communicator, model::SceneModel& model, TrainingData const& data) {
  auto const device = model.parameters().front().tensor.device();
  if (data.folders().front().pairs) {
    auto const& known = data.latent_statistics();
    model.set_latent_statistics(at::tensor(at::ArrayRef<float>(known.mean)).to(device),
                                at::tensor(at::ArrayRef<float>(known.deviation)).to(device));
  } else if (data.online() && model.options().normalize_latents) {
    // One rank measures: a device that rounds differently must not make another flow space.
    auto statistics = at::zeros({2, model.options().d}, at::TensorOptions(at::kFloat).device(device));
    if (communicator.rank() == 0) {
      auto const latents = first_latents(model, data).flatten(0, 1);
      statistics[0].copy_(latents.mean(0));
      statistics[1].copy_(latents.var(0, /*unbiased=*/false).clamp_min(1e-12).sqrt());
    }
    dist::broadcast(communicator, statistics).wait();
    model.set_latent_statistics(statistics[0], statistics[1]);
  }
}

void check_producer(Config const& config, model::SceneModel const& model, TrainingFolder const& pairs, bool warn) {
  auto const mine = producer_of(model);
  auto const& theirs = pairs.pairs->producer;
  if (mine == theirs) return;
  auto const what = fmt::format("{}: the pairs were encoded by another reconstructor (producer {}, this model's is {})",
                                pairs.index->directory(), theirs, mine);
  if (!config.data.allow_other_producer)
    throw data::DataError(what +
                          "; its renderer would not understand the latents: encode again, set training.init_from to "
                          "that model, or data.allow_other_producer: true");
  if (warn) log_warning(fmt::format("{}; accepted by data.allow_other_producer", what));
}

std::string find_checkpoint(dist::Communicator const& communicator, std::string const& checkpoints,
                            std::string const& resume) {
  if (resume == "never") return "";
  if (resume != "auto") return dist::resolve_checkpoint(resume);
  std::vector<dist::CheckpointProblem> rejected;
  auto folder = dist::newest_valid_checkpoint(communicator, checkpoints, &rejected);
  if (folder.empty() && !rejected.empty())  // starting anew would write over what may still be repaired
    throw dist::CheckpointError(fmt::format(
        "{}: none of {} checkpoints is valid, the newest: {}; restore one from a copy, or give --resume never to "
        "start anew (they are kept aside)",
        checkpoints, rejected.size(), rejected.front().problem));
  if (communicator.rank() == 0)
    for (auto const& [name, problem] : rejected) log_warning(fmt::format("checkpoint {} rejected: {}", name, problem));
  return folder;
}

}  // namespace duoflow::launch
