#pragma once
// Rules of the config that name parameters by glob on their state-dict keys ("*" passes dots too): what is frozen, and
// what learns at another rate.

#include <string>
#include <utility>
#include <vector>

#include "launch/config.h"
#include "model/scene_model.h"

namespace duoflow::launch {

// "GLOB=FACTOR" of training.lr_scale. ConfigError for another form or a factor that is not above 0.
std::pair<std::string, double> parse_rate_rule(std::string const& rule);

// Parameters that match training.freeze no longer require a gradient. ConfigError: a pattern that matches no key (names
// the nearest one), or nothing left to train, in the joint objective of the editor.
void freeze_by_rules(model::SceneModel& model, Config const& config);

// Sets of hyper-parameters; a parameter's is its group in the flat buffer. The first two are those without rules:
// matrices with weight decay, vectors without.
struct ParameterGroups {
  std::vector<double> weight_decay, rate_factor;
  int group_of(std::string const& name) const;

  std::vector<std::pair<std::string, int>> members{};  // by name, sorted
};
// Of the parameters that train as the model is marked now. ConfigError: a rule of training.lr_scale that matches no key
// (names the nearest one), or only parameters that do not train.
ParameterGroups parameter_groups(model::SceneModel const& model, Config const& config);

}  // namespace duoflow::launch
