#include "launch/memory_estimate.h"

#include <new>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>

#include "launch/run_setup.h"
#include "launch/training_data.h"
#include "model/activation_bytes.h"
#include "model/fused/cuda/operators.h"

namespace duoflow::launch {
namespace {

constexpr double kFloat = 4, kBfloat16 = 2, kMiB = 1 << 20;
constexpr double kProgram = 128 * kMiB;  // resident before a model is there, on the CPU (measured: benchmarks/results/memory.md)

struct Counts {
  double all = 0, trainable = 0;
  double rounded = 0;  // kept in bf16 beside the fp32 ones: the optimizer's, which are all that train, and the model's of the rest
};

Counts count_parameters(Config const& config) {
  auto model = model::SceneModel::shapes_only(config.model);
  mark_trainable(model, config);
  Counts counts;
  auto const running = running_parts(config);
  for (auto const& parameter : model.parameters()) {
    auto const n = static_cast<double>(parameter.tensor.numel());
    counts.all += n;
    bool const learns = parameter.trainable && parameter.tensor.requires_grad();
    if (learns) counts.trainable += n;
    if (learns || (parameter.matrix && running.contains(parameter.part))) counts.rounded += n;
  }
  if (config.model.compute == model::ComputeType::fp32) counts.rounded = 0;
  return counts;
}

// Of one sample, as shards hold it: pairs with latents in bf16, or pictures alone.
double bytes_read(Config const& config) {
  auto const& m = config.model;
  auto const number = [](std::int64_t n) { return static_cast<double>(n); };
  double const picture = 4 * number(m.image_size * m.image_size);  // RGB and alpha, a byte each
  double const targets = picture * number(config.training.num_target_views);
  double const inputs = picture * number(config.training.num_input_views);
  if (config.objective == "reconstruction") return targets + inputs;
  double const light = 2 * 3 * 2 * number(m.env_height * m.env_height);  // fp16, twice as wide as high
  return targets + light + (config.latents == "online" ? 2 * inputs : 2 * 2 * number(m.n_latent_vectors * m.d));
}

// The same as the step takes it: fp32, with a ray of six numbers for every pixel.
double bytes_on_device(Config const& config) {
  auto const& m = config.model;
  auto const number = [](std::int64_t n) { return static_cast<double>(n); };
  double const view = (3 + 6) * kFloat * number(m.image_size * m.image_size);
  double const targets = view * number(config.training.num_target_views);
  double const inputs = view * number(config.training.num_input_views);
  if (config.objective == "reconstruction") return targets + inputs;
  double const light = 9 * 2 * kFloat * number(m.env_height * m.env_height);
  return targets + light + (config.latents == "online" ? inputs : 2 * kFloat * number(m.n_latent_vectors * m.d));
}

double activations(Config const& config, std::int64_t samples, bool on_cpu, bool fused) {
  auto const& t = config.training;
  model::ActivationShape shape{samples, t.num_target_views, t.render_view_chunk, true, trains(config, model::Part::renderer), on_cpu, fused};
  if (config.objective == "joint" && config.latents == "cached") {
    if (!renders_at_all(config)) shape.views = 0;
    return model::activation_bytes(config.model, shape).peak();
  }
  // An encoder of pictures is a stack of plain blocks over their tokens and the latents, as a renderer of one view is.
  bool const encoder_trains = trains(config, model::Part::reconstructor);
  double const reconstructor = encoder_trains ? model::reconstructor_bytes(config.model, shape, t.num_input_views) : 0;
  if (config.objective == "reconstruction") shape.editor_trains = false;
  auto bytes = model::activation_bytes(config.model, shape);
  if (config.objective == "reconstruction") bytes.editor = 0;
  return bytes.peak() + reconstructor;
}

bool is_out_of_memory(std::exception const& error) {
  std::string const text = error.what();
  // c10's CPU allocator has no type of its own for it.
  return dynamic_cast<std::bad_alloc const*>(&error) || dynamic_cast<c10::OutOfMemoryError const*>(&error) ||
         text.find("DefaultCPUAllocator: ") != std::string::npos;
}

}  // namespace

double MemoryEstimate::device_bytes() const {
  double sum = 0;
  for (auto const& part : parts) sum += part.device_bytes;
  return sum;
}

double MemoryEstimate::host_bytes() const {
  double sum = 0;
  for (auto const& part : parts) sum += part.host_bytes;
  return sum;
}

MemoryEstimate estimate_memory(Config const& config, int ranks, bool on_cpu) {
  auto const plan = plan_batches(config.training, config.dist, 0, ranks);
  auto const count = count_parameters(config);
  double const shards = config.dist.zero > 0 ? ranks : 1, averages = config.training.ema_decay > 0 ? 1 : 0;
  double const samples = static_cast<double>(plan.micro_batch), micro_steps = static_cast<double>(plan.micro_steps);
  double const scratch = config.dist.gradient_dtype == "bf16" ? kFloat : config.dist.reproducible ? kFloat : 0;
  double const held = config.objective == "joint" && config.flow.statistics == "current" ? micro_steps : 1;

  MemoryEstimate result;
  result.parameters = static_cast<std::int64_t>(count.all);
  result.trainable = static_cast<std::int64_t>(count.trainable);
  result.ranks = ranks;
  result.on_cpu = on_cpu;
  result.fused = on_cpu || model::cuda::has_kernels();
  result.parts = {
      {"parameters, fp32", kFloat * count.all, 0},
      {"weights in bf16 beside them", kBfloat16 * count.rounded, 0},
      {"gradients, fp32", kFloat * count.trainable, 0},
      {"moments, fp32", 2 * kFloat * count.trainable / shards, 0},
      {"average (training.ema_decay)", averages * kFloat * count.trainable / shards, 0},
      {"exchange of gradients", scratch * count.trainable, 0},
      {"batches", bytes_on_device(config) * samples * (on_cpu ? held : held + 1), 0},
      {"activations", activations(config, plan.micro_batch, on_cpu, result.fused), 0},
      {"slots of the reader (data)", 0, bytes_read(config) * samples * (2 * micro_steps + 2)},
      {"checkpoint being written", 0,
       config.training.checkpoint_async ? kFloat * count.trainable * (3 + averages) / ranks : 0},
      {"program", on_cpu ? kProgram : 0, on_cpu ? 0 : kProgram},
  };
  return result;
}

std::string described(MemoryEstimate const& estimate) {
  auto const head = fmt::format("{:.1f} M parameters, {:.1f} M of them train; {} rank(s) on {}; MiB per rank\n",
                                1e-6 * static_cast<double>(estimate.parameters), 1e-6 * static_cast<double>(estimate.trainable),
                                estimate.ranks, estimate.on_cpu ? "cpu" : "cuda");
  std::string rows = fmt::format("{:<32} {:>10} {:>10}\n", "", estimate.on_cpu ? "memory" : "GPU", estimate.on_cpu ? "" : "host");
  auto const row = [&](std::string const& name, double device, double host) {
    if (device + host < 0.05 * kMiB) return;
    if (estimate.on_cpu) rows += fmt::format("{:<32} {:>10.1f}\n", name, (device + host) / kMiB);
    else rows += fmt::format("{:<32} {:>10.1f} {:>10.1f}\n", name, device / kMiB, host / kMiB);
  };
  for (auto const& part : estimate.parts) row(part.name, part.device_bytes, part.host_bytes);
  row("sum", estimate.device_bytes(), estimate.host_bytes());
  std::string const not_counted = estimate.on_cpu
                                      ? "not counted: networks of LPIPS and VGG19, what the allocator keeps for reuse"
                                      : "not counted: CUDA's own context, networks of LPIPS and VGG19, what the allocator keeps for reuse";
  std::string const plain = estimate.fused ? "" : "counted: ATen's operators, this program has no CUDA kernels; with them blocks keep less\n";
  return head + rows + not_counted + "\n" + plain +
         "less: training.batch_size_per_gpu lower with training.global_batch_size set (same results), "
         "training.grad_checkpoint_every=1, training.render_view_chunk=1, dist.zero=1";
}

int with_memory_advice(Config const& config, int ranks, bool on_cpu, std::function<int()> const& body) {
  try {
    return body();
  } catch (std::exception const& error) {
    if (!is_out_of_memory(error)) throw;
    std::string reason = error.what();
    reason = reason.substr(0, reason.find('\n'));
    throw std::runtime_error(fmt::format("out of memory ({}). What this configuration is estimated to take: {}", reason,
                                         described(estimate_memory(config, ranks, on_cpu))));
  }
}

}  // namespace duoflow::launch
