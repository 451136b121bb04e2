#pragma once
// A checkpoint has its weights once or twice: what the optimizer moves (the model files), and with training.ema_decay
// their running average ("ema.<key>" in the state files).

#include <string>
#include <vector>

#include "dist/checkpoint/checkpoint.h"

namespace duoflow::launch {

enum class WeightsChoice { automatic, trained, ema };  // automatic: the average where there is one

std::vector<std::string> const& weights_choice_names();  // auto, trained, ema
// ConfigError, beginning with `option`, for another name.
WeightsChoice weights_choice(std::string const& name, std::string const& option);

inline constexpr char const* kAveragePrefix = "ema.";

// Model tensors with the average in place of what it averages, or as they were trained. *averaged: which it is.
// `folder`: a checkpoint's, every hash is checked. CheckpointError also when the average is asked for and there is
// none.
std::vector<dist::NamedTensor> read_weights(std::string const& folder, WeightsChoice choice, bool* averaged);
// The same of a checkpoint that was read already; in place. Returns whether it is the average.
bool choose_weights(dist::CheckpointState& state, WeightsChoice choice, std::string const& folder);

}  // namespace duoflow::launch
