#include "launch/attention_choice.h"

#include <algorithm>
#include <exception>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <torch/csrc/autograd/autograd.h>

namespace duoflow::launch {
namespace {

// Which of them scaled_dot_product_attention may take; `fallback`: its plain formula too, for what the others refuse.
void allow(std::string const& name, bool fallback) {
  auto& context = at::globalContext();
  context.setSDPUseCuDNN(name == "cudnn");
  context.setSDPUseFlash(name == "flash");
  context.setSDPUseMemEfficient(name == "efficient");
  context.setSDPUseMath(fallback);
}

void allow_all() {
  auto& context = at::globalContext();
  context.setSDPUseCuDNN(true), context.setSDPUseFlash(true), context.setSDPUseMemEfficient(true), context.setSDPUseMath(true);
}

// Of a forward and a backward, on the device's clock; the best of a few.
double time_once(AttentionShape const& s, at::ScalarType type, c10::Device device) {
  auto const tensor = [&] {
    return at::full({s.sequences, s.heads, s.tokens, s.d_head}, 0.1, at::TensorOptions(type).device(device)).requires_grad_(true);
  };
  at::Tensor const q = tensor(), k = tensor(), v = tensor(), g = at::full_like(q, 0.1);
  c10::impl::VirtualGuardImpl const guard(device.type());
  double best = 0;
  for (int i = 0; i < 5; ++i) {  // the first makes workspaces and plans
    c10::Event begin(device.type(), c10::EventFlag::BACKEND_DEFAULT), end(device.type(), c10::EventFlag::BACKEND_DEFAULT);
    begin.record(guard.getStream(device));
    torch::autograd::backward({at::scaled_dot_product_attention(q, k, v)}, {g});
    end.record(guard.getStream(device));
    end.synchronize();
    double const ms = begin.elapsedTime(end);
    if (i == 1 || (i > 1 && ms < best)) best = ms;
  }
  return best;
}

std::optional<double> time_of(std::string const& name, AttentionShape const& shape, at::ScalarType type, c10::Device device) {
  allow(name, /*fallback=*/false);
  try {
    return time_once(shape, type, device);
  } catch (std::exception const&) {  // of a backend that has no kernel for this shape, type or device
    return std::nullopt;
  }
}

std::string described(std::vector<TimedBackend> const& timed) {
  std::string text;
  for (auto const& [name, ms] : timed) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, ms ? fmt::format("{:.3f} ms", *ms) : "cannot run");
  return text;
}

}  // namespace

AttentionShape attention_shape(Config const& config, std::int64_t samples) {
  auto const& m = config.model;
  auto const views = config.training.render_view_chunk > 0 ? std::min<std::int64_t>(config.training.render_view_chunk, config.training.num_target_views)
                                                           : config.training.num_target_views;
  auto const patches = m.image_size / m.patch_size;
  return {samples * views, m.d / m.d_head, m.n_latent_vectors + patches * patches, m.d_head};
}

std::string fastest(std::vector<TimedBackend> const& timed) {
  TimedBackend const* best = nullptr;
  for (auto const& one : timed)
    if (one.ms && (best == nullptr || *one.ms < *best->ms)) best = &one;
  return best == nullptr ? "" : best->name;
}

std::string choose_attention(dist::Communicator const& communicator, Config const& config, AttentionShape const& shape, c10::Device device) {
  auto const& wanted = config.training.attention_backend;
  if (!device.is_cuda() || wanted == "library" || (wanted == "measured" && config.dist.reproducible)) return "";
  auto const type = config.model.compute == model::ComputeType::bf16 ? at::kBFloat16 : at::kFloat;
  auto const at = fmt::format("{} sequences of {} tokens, {} heads of {}", shape.sequences, shape.tokens, shape.heads, shape.d_head);
  if (wanted != "measured") {
    if (!time_of(wanted, shape, type, device))
      throw ConfigError(fmt::format("training.attention_backend = {} cannot run {} on {}; use measured, or another", wanted, at, device.str()));
    allow(wanted, /*fallback=*/true);
    return fmt::format("attention by {}", wanted);
  }
  nlohmann::json mine = nlohmann::json::object();
  if (communicator.rank() == 0) {
    std::vector<TimedBackend> timed;
    for (auto const* name : kAttentionBackends) timed.push_back({name, time_of(name, shape, type, device)});
    mine = {{"name", fastest(timed)}, {"times", described(timed)}};
  }
  auto const choice = nlohmann::json::parse(dist::all_gather_strings(communicator, mine.dump()).front());
  auto const name = choice.at("name").get<std::string>();
  name.empty() ? allow_all() : allow(name, /*fallback=*/true);
  return fmt::format("attention by {}, measured at {} ({})", name.empty() ? "the library's choice" : name, at, choice.at("times").get<std::string>());
}

}  // namespace duoflow::launch
