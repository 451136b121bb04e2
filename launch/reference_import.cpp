#include "launch/reference_import.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "dist/error.h"
#include "launch/model_setup.h"
#include "launch/reference_layout.h"
#include "launch/run_setup.h"
#include "launch/weights_file.h"

namespace duoflow::launch {
namespace {

std::vector<std::string> names_of(model::NamedTensors const& tensors) {
  std::vector<std::string> names;
  for (auto const& [name, tensor] : tensors) names.push_back(name);
  return names;
}

std::string shape(at::Tensor const& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ",")); }

class Import {
 public:
  Import(model::ReferenceCheckpoint const& checkpoint, ImportRequest const& request)
      : checkpoint_(checkpoint), request_(request), layout_(reference_layout(checkpoint.model, request.origin)) {}

  Imported run() {
    bool const trained = checkpoint_.optimizer.has_value() && !request_.weights_only;
    if (trained) find_trained();
    result_.config = make_config(trained);
    check_layout(layout_, result_.config, request_.origin);
    for (auto const& note : result_.config.notes) result_.notes.push_back(note);
    model::SceneModel model(result_.config.model, result_.config.training.seed);
    load(model);
    result_.state.model = model_tensors(model);
    for (auto& [name, tensor] : result_.state.model) tensor = tensor.clone();
    if (trained) add_moments();
    add_counters(model);
    result_.state.config_yaml = effective_yaml(result_.config);
    for (auto const& [name, tensor] : layout_.set_aside) result_.set_aside.push_back({name, tensor.contiguous()});
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(std::string const& problem) const {
    throw dist::CheckpointError(fmt::format("{}: {}", request_.origin, problem));
  }
  void note(std::string text) { result_.notes.push_back(std::move(text)); }

  // Which parameters the optimizer numbers: all, or the editor's (freeze_reconstructor_and_renderer).
  void find_trained() {
    auto const& groups = checkpoint_.optimizer->groups;
    if (groups.size() != 2)
      refuse(fmt::format("its optimizer has {} groups of parameters, the family's has 2; import it with --weights-only",
                         groups.size()));
    auto const fits = [&](model::NamedTensors const& parameters) {
      auto const flat =
          std::count_if(parameters.begin(), parameters.end(), [](auto const& p) { return p.second.dim() == 1; });
      return std::ssize(groups[0].parameters) == std::ssize(parameters) - flat &&
             std::ssize(groups[1].parameters) == flat;
    };
    model::NamedTensors editor;
    for (auto const& named : layout_.parameters)
      if (is_editor_parameter(named.first)) editor.push_back(named);
    bool const all_fit = fits(layout_.parameters), editor_fits = fits(editor);
    if (!all_fit && !editor_fits) {
      check_names_alone();
      refuse(fmt::format(
          "its optimizer has {} + {} parameters; the state dict has {}, {} of them the editor's (neither fits); "
          "import it with --weights-only",
          groups[0].parameters.size(), groups[1].parameters.size(), layout_.parameters.size(), editor.size()));
    }
    editor_alone_ = !all_fit;
    order_ = model::optimizer_order(editor_alone_ ? editor : layout_.parameters);
    std::int64_t expected = 0;
    for (auto const& group : groups)
      for (auto const index : group.parameters)
        if (index != expected++)
          refuse(
              fmt::format("its optimizer numbers its parameters in another order ({} where {} belongs); import it with "
                          "--weights-only",
                          index, expected - 1));
  }

  // The file's YAML, or the class that the tensors tell; then what the optimizer was saved with; then the overrides.
  Config make_config(bool trained) const {
    std::vector<std::string> settings;
    if (request_.config.empty()) {
      settings.push_back("model.class_name=" + layout_.class_name);
      for (auto const& [key, value] : layout_.settings) settings.push_back(key + "=" + value);
      settings.push_back("latents=online");  // as the family trains
      if (trained && editor_alone_) settings.push_back("training.freeze_reconstructor_renderer=true");
    }
    if (trained) {
      auto const& group = checkpoint_.optimizer->groups[0];
      settings.push_back(fmt::format("training.lr={}", group.initial_lr));
      settings.push_back(fmt::format("training.beta1={}", group.beta1));
      settings.push_back(fmt::format("training.beta2={}", group.beta2));
      settings.push_back(fmt::format("training.weight_decay={}", group.weight_decay));
    }
    settings.insert(settings.end(), request_.overrides.begin(), request_.overrides.end());
    return request_.config.empty() ? parse_config("", request_.origin, settings)
                                   : load_config(request_.config, settings);
  }

  void load(model::SceneModel& model) {
    std::vector<std::pair<std::string, at::Tensor>> values;
    for (auto const& named : layout_.model) values.push_back(named);
    model::SceneModel::LoadReport report;
    try {
      report = model.load(values);
    } catch (std::invalid_argument const& error) {
      refuse(error.what());
    }
    check_names(model, report);
    std::vector<dist::NamedTensor> tensors;
    for (auto const& [name, tensor] : layout_.model) tensors.push_back({name, tensor});
    require_real_numbers(tensors, request_.origin);
  }

  // A key too many or too few changes the parameters' number: it is the cause, and said before what follows from it.
  void check_names_alone() {
    auto const config = make_config(/*trained=*/false);
    check_layout(layout_, config, request_.origin);
    model::SceneModel model(config.model, config.training.seed);
    load(model);
    result_.notes.clear();
  }

  void check_names(model::SceneModel const& model, model::SceneModel::LoadReport const& report) {
    bool const has_editor = std::any_of(layout_.model.begin(), layout_.model.end(),
                                        [](auto const& p) { return p.first.starts_with("transformer_editor."); });
    std::vector<std::string> missing;
    std::int64_t initial = 0;
    for (auto const& parameter : model.parameters()) {
      if (std::find(report.missing.begin(), report.missing.end(), parameter.name) == report.missing.end() ||
          !parameter.trainable)
        continue;
      if (parameter.part == model::Part::editor && !has_editor)
        ++initial;
      else
        missing.push_back(parameter.name);
    }
    if (!missing.empty()) {
      auto near = nearest_note(missing.front(), report.unexpected);  // a key that was misspelt
      if (near.empty()) near = nearest_note(missing.front(), names_of(layout_.model));
      refuse(
          fmt::format("{} tensors of the model are missing, the first is {}{}; give a whole checkpoint, or the config "
                      "it was trained with",
                      missing.size(), missing.front(), near));
    }
    if (!report.unexpected.empty()) {
      std::vector<std::string> names;
      for (auto const& parameter : model.parameters()) names.push_back(parameter.name);
      refuse(fmt::format("{} tensors are not of this model, the first is {}{}; give a checkpoint of {}",
                         report.unexpected.size(), report.unexpected.front(),
                         nearest_note(report.unexpected.front(), names), layout_.class_name));
    }
    if (initial > 0) note(fmt::format("it has no editor: {} tensors keep their initial values", initial));
  }

  void add_moments() {
    auto const& optimizer = *checkpoint_.optimizer;
    for (auto const& group : optimizer.groups)
      if (group.amsgrad || group.maximize || group.eps != 1e-8)
        refuse(
            "its optimizer uses amsgrad, maximize or an eps other than 1e-8 (AdamW's plain form is used here); import "
            "it with --weights-only");
    std::set<double> steps;
    std::vector<std::string> without;
    std::int64_t foreign = 0;
    for (std::size_t i = 0; i < order_.size(); ++i) {
      auto const value = std::find_if(layout_.parameters.begin(), layout_.parameters.end(), [&](auto const& p) {
                           return p.first == order_[i];
                         })->second;
      auto const found = optimizer.state.find(static_cast<std::int64_t>(i));
      bool const ours =
          std::any_of(layout_.model.begin(), layout_.model.end(), [&](auto const& p) { return p.first == order_[i]; });
      auto average = at::zeros(value.sizes(), at::TensorOptions(at::kFloat)), square = at::zeros_like(average);
      if (found == optimizer.state.end()) {
        without.push_back(order_[i]);
      } else {
        steps.insert(found->second.step);
        average = moment(found->second.exp_avg, order_[i], "exp_avg", value);
        square = moment(found->second.exp_avg_sq, order_[i], "exp_avg_sq", value);
      }
      if (!ours) {
        ++foreign;
        continue;
      }
      result_.state.state.push_back({"exp_avg." + order_[i], average});
      result_.state.state.push_back({"exp_avg_sq." + order_[i], square});
    }
    if (steps.size() > 1)
      refuse(
          fmt::format("Adam's step differs between parameters, from {} to {} (here one count holds for all); import it "
                      "with --weights-only",
                      *steps.begin(), *steps.rbegin()));
    updates_ = steps.empty() ? checkpoint_.updates : static_cast<std::int64_t>(*steps.begin());
    if (!without.empty() && !steps.empty())
      note(fmt::format("{} parameters have no moments (they never had a gradient), the first is {}; theirs are zero",
                       without.size(), without.front()));
    if (foreign > 0) note(fmt::format("moments of {} parameters that no model here has are left out", foreign));
    for (auto const part : {model::Part::reconstructor, model::Part::renderer})
      if (editor_alone_ && trains(result_.config, part)) {
        note(
            "it trained the editor alone, the config trains more: to go on from it set "
            "training.freeze_reconstructor_renderer: true");
        break;
      }
  }

  at::Tensor moment(at::Tensor const& tensor, std::string const& name, char const* which,
                    at::Tensor const& value) const {
    if (tensor.sizes() != value.sizes())
      refuse(fmt::format("the optimizer's {} of {} has shape {}, the tensor {}; import it with --weights-only", which,
                         name, shape(tensor), shape(value)));
    if (!at::isfinite(tensor).all().item<bool>())
      refuse(
          fmt::format("the optimizer's {} of {} holds numbers that are not finite (the run had diverged); give an "
                      "earlier checkpoint, or import it with --weights-only",
                      which, name));
    return tensor.to(at::kFloat).contiguous();
  }

  void add_counters(model::SceneModel const& model) {
    bool const trained = !order_.empty();
    auto const steps = trained ? checkpoint_.scheduler_steps.value_or(updates_) : 0;
    auto const& t = result_.config.training;
    auto const batch = t.global_batch_size > 0 ? t.global_batch_size : t.batch_size_per_gpu * t.grad_accum_steps;
    result_.state.step = steps;
    result_.state.state.push_back(
        {"update_count", at::full({}, static_cast<double>(updates_), at::TensorOptions(at::kFloat))});
    // No data fingerprint: what the family's code has seen is not known here. Any data are gone on with.
    result_.state.counters_json = nlohmann::json{
        {"step", steps},
        {"samples", steps * batch},
        {"skips_in_a_row", 0},
        {"global_batch", batch},
        {"data_fingerprint", ""},
        {"schedule_ahead", steps - updates_},
        {"imported", true},
        {"forward_passes", trained ? checkpoint_.forward_passes : 0},
        {"seed", t.seed},
        {"objective", result_.config.objective},
        {"producer",
         producer_of(model)}}.dump();
    if (trained)
      note(fmt::format("updates {}, learning rate's schedule at {}, forward passes {}", updates_, steps,
                       checkpoint_.forward_passes));
    else
      note("weights only: to train on, name it in training.init_from");
  }

  model::ReferenceCheckpoint const& checkpoint_;
  ImportRequest const& request_;
  ReferenceLayout layout_;
  std::vector<std::string> order_;  // the optimizer's
  bool editor_alone_ = false;
  std::int64_t updates_ = 0;
  Imported result_;
};

}  // namespace

Imported import_reference(model::ReferenceCheckpoint const& checkpoint, ImportRequest const& request) {
  return Import(checkpoint, request).run();
}

}  // namespace duoflow::launch
