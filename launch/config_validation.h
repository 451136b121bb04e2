#pragma once
// Private to the configuration: which values it accepts.

#include <string>
#include <utility>
#include <vector>

#include "launch/config.h"

namespace duoflow::launch {

// ConfigError naming the key, its value and the rule, for the first value out of its range and for values that
// contradict each other.
void validate(Config& config);

// ConfigError listing the valid values; `note` is said behind them.
void require_one_of(char const* key, std::string const& value, std::vector<std::string> const& valid,
                    char const* note = "");

bool has_image_term(TrainingConfig const& config);  // whether a term of the render loss has a weight

std::pair<double, double> clamp_of(FlowMatchingConfig const& config);  // of weight_clamp: {min, max}; max 0: none

}  // namespace duoflow::launch
