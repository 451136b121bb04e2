#pragma once
// The trainer: the only place where data, model and ranks meet. One object per rank and run.

#include <string>
#include <vector>

#include "dist/runtime.h"
#include "launch/config.h"
#include "launch/data_folders.h"

namespace duoflow::launch {

struct TrainArguments {
  std::vector<DataFolder> data;
  std::string run;
  std::string resume = "auto";  // auto, never, or a checkpoint or run folder
  std::int64_t profile = 0;     // steps to profile from the first on (profile/profile.h); 0: none
};

inline constexpr int kStoppedOnRequest = 75;

// Trains to config.training.train_steps. Collective: all ranks call with the same arguments. Returns 0, or
// kStoppedOnRequest when a signal or the time limit ended the run after a checkpoint.
int train(dist::Runtime& runtime, Config const& config, TrainArguments const& arguments);

}  // namespace duoflow::launch
