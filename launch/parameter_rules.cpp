#include "launch/parameter_rules.h"

#include <fnmatch.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include "model/edit_distance.h"

namespace duoflow::launch {
namespace {

bool matches(std::string const& pattern, std::string const& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

// The key that comes closest, however far: something to look at. A wildcard stands for any text before or behind it.
std::string nearest(std::string pattern, model::SceneModel const& model) {
  std::erase_if(pattern, [](char c) { return c == '*' || c == '?'; });
  std::string best;
  auto least = std::numeric_limits<std::size_t>::max();
  for (auto const& [name, tensor, part, trainable, matrix] : model.parameters()) {
    auto const length = std::min(pattern.size(), name.size());
    auto const distance =
        std::min({model::edit_distance(pattern, name), model::edit_distance(pattern, name.substr(0, length)),
                  model::edit_distance(pattern, name.substr(name.size() - length))});
    if (trainable && distance < least) least = distance, best = name;
  }
  return best;
}

void require_match(bool any, char const* key, std::string const& pattern, model::SceneModel const& model) {
  if (!any)
    throw ConfigError(fmt::format("{}: {} matches no parameter (the nearest key is {}); correct it, or take it out",
                                  key, pattern, nearest(pattern, model)));
}

constexpr char const* kEditorBlocks = "transformer_editor.";

// training.layer_lr_decay: 1 for the last block and for everything that is no block of the editor.
double depth_factor(std::string const& name, Config const& config) {
  double const decay = config.training.layer_lr_decay;
  if (decay == 1 || !name.starts_with(kEditorBlocks)) return 1;
  std::int64_t block = 0;
  auto const* first = name.data() + std::string(kEditorBlocks).size();
  std::from_chars(first, name.data() + name.size(), block);
  return std::pow(decay, static_cast<double>(config.model.editor_n_layer - 1 - block));
}

}  // namespace

std::pair<std::string, double> parse_rate_rule(std::string const& rule) {
  auto const equals = rule.rfind('=');
  double factor = 0;
  bool good = equals != std::string::npos && equals > 0;
  if (good) {
    auto const* const end = rule.data() + rule.size();
    auto const [stop, error] = std::from_chars(rule.data() + equals + 1, end, factor);
    good = error == std::errc() && stop == end && std::isfinite(factor) && factor > 0;
  }
  if (!good)
    throw ConfigError(
        fmt::format("training.lr_scale: \"{}\" is not GLOB=FACTOR with a factor above 0 (0 is training.freeze); write "
                    "for example \"transformer_editor.0.*=0.1\"",
                    rule));
  return {rule.substr(0, equals), factor};
}

void freeze_by_rules(model::SceneModel& model, Config const& config) {
  auto const& patterns = config.training.freeze;
  if (patterns.empty()) return;
  for (auto const& pattern : patterns) {
    bool any = false;
    for (auto const& parameter : model.parameters()) {
      if (!parameter.trainable || !matches(pattern, parameter.name)) continue;
      any = true;
      at::Tensor tensor = parameter.tensor;
      tensor.set_requires_grad(false);
    }
    require_match(any, "training.freeze", pattern, model);
  }
  bool const joint = config.objective == "joint";
  bool const left = joint ? model.trainable(model::Part::editor)
                          : model.trainable(model::Part::reconstructor) || model.trainable(model::Part::renderer);
  if (joint && config.flow.weighting == "separate_graphs" && !model.trainable(model::Part::renderer))
    throw ConfigError(
        "training.freeze leaves no parameter of the renderer to train (the render loss of weighting: separate_graphs "
        "reaches it alone); take a pattern out, or use weighting: fixed");
  if (!left)
    throw ConfigError(
        fmt::format("training.freeze leaves no parameter of {} to train (violated: objective {} trains "
                    "it); take a pattern out",
                    joint ? "the editor" : "the reconstructor and the renderer", config.objective));
}

int ParameterGroups::group_of(std::string const& name) const {
  auto const found = std::lower_bound(members.begin(), members.end(), std::pair(name, 0));
  return found->second;
}

ParameterGroups parameter_groups(model::SceneModel const& model, Config const& config) {
  ParameterGroups groups{{config.training.weight_decay, 0}, {1, 1}};
  std::map<std::pair<bool, double>, int> known{{{false, 1.0}, 0}, {{true, 1.0}, 1}};
  std::vector<std::pair<std::string, double>> rules;
  for (auto const& rule : config.training.lr_scale) rules.push_back(parse_rate_rule(rule));
  std::vector<bool> matched(rules.size()), used(rules.size());
  for (auto const& parameter : model.parameters()) {
    if (!parameter.trainable) continue;
    double factor = 1;
    for (std::size_t i = 0; i < rules.size(); ++i) {
      if (!matches(rules[i].first, parameter.name)) continue;
      matched[i] = true;
      if (parameter.tensor.requires_grad()) used[i] = true;
      factor = rules[i].second;
    }
    if (!parameter.tensor.requires_grad()) continue;
    factor *= depth_factor(parameter.name, config);
    bool const vector = parameter.tensor.dim() == 1;
    auto const [group, is_new] = known.emplace(std::pair(vector, factor), static_cast<int>(groups.weight_decay.size()));
    if (is_new) {
      groups.weight_decay.push_back(vector ? 0 : config.training.weight_decay);
      groups.rate_factor.push_back(factor);
    }
    groups.members.emplace_back(parameter.name, group->second);
  }
  for (std::size_t i = 0; i < rules.size(); ++i) {
    require_match(matched[i], "training.lr_scale", rules[i].first, model);
    if (!used[i])
      throw ConfigError(
          fmt::format("training.lr_scale: {} matches only parameters that do not train (frozen, or of a part that "
                      "stays as it is); take it out, or let them train",
                      rules[i].first));
  }
  std::sort(groups.members.begin(), groups.members.end());
  return groups;
}

}  // namespace duoflow::launch
