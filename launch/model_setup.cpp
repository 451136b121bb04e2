#include "launch/model_setup.h"

#include <filesystem>
#include <map>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "dist/checkpoint/checkpoint.h"
#include "dist/error.h"
#include "launch/logging.h"
#include "launch/weights_file.h"
#include "model/edit_distance.h"

namespace duoflow::launch {
namespace {

using LoadReport = model::SceneModel::LoadReport;

std::string first_few(std::vector<std::string> const& names) {
  std::vector<std::string> const head(names.begin(), names.begin() + std::min<std::ptrdiff_t>(3, std::ssize(names)));
  return fmt::format("{}{}", fmt::join(head, ", "),
                     names.size() > 3 ? fmt::format(" and {} more", names.size() - 3) : "");
}

std::vector<std::string> names_of(std::vector<dist::NamedTensor> const& tensors) {
  std::vector<std::string> names;
  for (auto const& [name, tensor] : tensors) names.push_back(name);
  return names;
}

// Parts of the editor that begin at zero or beside the blocks, so that an editor without them may start one that has
// them (the departures from the reference; model/options.h).
bool may_be_absent(std::string const& name) {
  for (auto const* prefix : {"editor_velocity_head.", "light_embedder.", "editor_residual_head."})
    if (name.starts_with(prefix)) return true;
  return false;
}

// A part of the model may be absent as a whole, or of an editor its extras: what begins anew. Of a part that is there
// everything must be: the rest would be random between trained tensors.
void require_whole_parts(model::SceneModel const& model, LoadReport const& report,
                         std::vector<dist::NamedTensor> const& tensors, std::string const& origin) {
  std::set<std::string> const missing(report.missing.begin(), report.missing.end());
  std::map<model::Part, bool> there;
  bool any = false;
  for (auto const& parameter : model.parameters()) {
    if (missing.contains(parameter.name) || !parameter.trainable) continue;
    any = true;
    bool const counts = parameter.part != model::Part::editor || parameter.name.starts_with("transformer_editor.");
    if (counts) there[parameter.part] = true;
  }
  if (!any)
    throw dist::CheckpointError(
        fmt::format("{}: none of its {} tensors is one of the model's (not weights of such a model); give "
                    "weights that duoflow or the LVSM family's code wrote",
                    origin, tensors.size()));
  std::vector<std::string> lost;
  for (auto const& parameter : model.parameters())
    if (parameter.trainable && there[parameter.part] && missing.contains(parameter.name) &&
        !may_be_absent(parameter.name))
      lost.push_back(parameter.name);
  if (!lost.empty())
    throw dist::CheckpointError(
        fmt::format("{}: {} tensors of the model are missing: {}{} (their values would be random; another "
                    "model's weights, or a file that is not whole); use the config these weights were "
                    "made with",
                    origin, lost.size(), first_few(lost), nearest_note(lost.front(), names_of(tensors))));
}

}  // namespace

std::string nearest_note(std::string const& name, std::vector<std::string> const& names) {
  auto const near = model::nearest_name(name, names);
  return near.empty() ? "" : fmt::format(", the nearest is {}", near);
}

void configure(dist::Runtime& runtime, Config const& config) {
  if (config.dist.threads > 0) runtime.set_threads(config.dist.threads);
  runtime.set_timeout(config.dist.timeout_s, config.dist.step_timeout_s);
  // cuDNN's convolutions round to TF32 unless told not to; only the loss networks have any, which are fp32 in every mode.
  at::globalContext().setAllowTF32CuDNN(false);
  if (config.dist.reproducible) {
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
    at::globalContext().setDeterministicFillUninitializedMemory(
        false);  // a debugging aid that costs a pass over memory
  }
}

at::Device choose_device(std::string const& name) {
  bool const available = at::hasCUDA() && at::getNumGPUs() > 0;
  if (name == "cuda" && !available)
    throw ConfigError(
        "dist.device = cuda but no CUDA device can be used (no GPU, no driver, or a CPU build); use dist.device=cpu or "
        "the gpu preset");
  return name == "cpu" || !available ? at::Device(at::kCPU) : at::Device(at::kCUDA);
}

namespace {

LoadReport load_known(model::SceneModel& model, std::vector<dist::NamedTensor> const& tensors,
                      std::string const& origin) {
  require_real_numbers(tensors, origin);
  std::vector<std::pair<std::string, at::Tensor>> named;
  for (auto const& [name, tensor] : tensors) named.emplace_back(name, tensor);
  LoadReport report;
  try {
    report = model.load(named);
  } catch (std::invalid_argument const& error) {
    throw ConfigError(
        fmt::format("{}: {} (the config describes another model); use the config these weights were made with", origin,
                    error.what()));
  }
  if (!report.unexpected.empty()) {
    auto const& extra = report.unexpected.front();
    auto near = nearest_note(extra, report.missing);  // a key that was misspelt leaves a gap
    if (near.empty()) near = nearest_note(extra, names_of(model_tensors(model)));
    throw ConfigError(fmt::format(
        "{}: holds {} tensors the model does not have: {}{} (the config describes another model); use the config these "
        "weights were made with",
        origin, report.unexpected.size(), first_few(report.unexpected), near));
  }
  return report;
}

}  // namespace

void load_tensors(model::SceneModel& model, std::vector<dist::NamedTensor> const& tensors, std::string const& origin,
                  std::vector<std::string>* missing) {
  auto report = load_known(model, tensors, origin);
  if (missing) *missing = std::move(report.missing);
}

std::vector<dist::NamedTensor> read_weights_at(std::string const& given, WeightsChoice choice, std::string* origin) {
  auto const path = weights_file_at(given);
  if (is_weights_file(path)) {
    if (choice == WeightsChoice::ema)
      throw ConfigError(fmt::format(
          "{}: a file holds its weights once (the average of the weights was asked for); name a checkpoint, "
          "or leave the choice to auto",
          path));
    if (origin) *origin = path;
    return read_weights_file(path);
  }
  auto const folder = dist::resolve_checkpoint(path);
  if (origin) *origin = folder;
  bool averaged = false;
  auto tensors = read_weights(folder, choice, &averaged);
  if (averaged) log_info(fmt::format("{}: the average of its weights (training.ema_decay) is taken", folder));
  return tensors;
}

std::vector<std::string> load_weights(model::SceneModel& model, std::string const& path, WeightsChoice choice) {
  std::string origin;
  auto const tensors = read_weights_at(path, choice, &origin);
  auto const report = load_known(model, tensors, origin);
  require_whole_parts(model, report, tensors, origin);
  return report.missing;
}

LoadedModel load_checkpoint_model(std::string const& path, std::vector<std::string> const& overrides,
                                  WeightsChoice choice) {
  auto const folder = dist::resolve_checkpoint(path);
  auto state = dist::read_checkpoint(folder);
  bool const averaged = choose_weights(state, choice, folder);
  if (averaged) log_info(fmt::format("{}: the average of its weights (training.ema_decay) is taken", folder));
  auto config = parse_stored_config(state.config_yaml, folder + "/manifest.json (config)", overrides);
  model::SceneModel model(config.model, config.training.seed);
  std::vector<std::string> missing;
  load_tensors(model, state.model, folder, &missing);
  if (!missing.empty())
    throw dist::CheckpointError(
        fmt::format("{}: {} tensors of the model are missing: {} (not a complete checkpoint); use another", folder,
                    missing.size(), first_few(missing)));
  for (auto const part : {model::Part::reconstructor, model::Part::editor, model::Part::renderer})
    model.set_trainable(part, false);
  return {std::move(config), std::move(model), folder, state.step, averaged};
}

std::vector<dist::NamedTensor> model_tensors(model::SceneModel const& model) {
  std::vector<dist::NamedTensor> tensors;
  for (auto const& parameter : model.parameters()) tensors.push_back({parameter.name, parameter.tensor.detach()});
  return tensors;
}

std::string producer_of(model::SceneModel const& model) {
  std::vector<dist::NamedTensor> tensors;
  for (auto const& parameter : model.parameters())
    if (parameter.part == model::Part::reconstructor && parameter.trainable)
      tensors.push_back({parameter.name, parameter.tensor.detach()});
  return dist::model_fingerprint(tensors);
}

}  // namespace duoflow::launch
