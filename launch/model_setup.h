#pragma once
// From a config, a safetensors file, a checkpoint or a run folder to a model with weights.

#include <string>
#include <vector>

#include "dist/checkpoint/safetensors.h"
#include "dist/runtime.h"
#include "launch/checkpoint_weights.h"
#include "launch/config.h"
#include "model/scene_model.h"

namespace duoflow::launch {

// Threads per rank and deadlines of collectives and steps, as the config says.
void configure(dist::Runtime& runtime, Config const& config);
// auto: CUDA when this build and machine have it. ConfigError when cuda is asked for and absent.
at::Device choose_device(std::string const& name);

// The tensors of `path`: a .safetensors file, the LVSM family's .pt or a folder of them, a checkpoint folder, or a run
// folder (its newest valid checkpoint). *origin: the file or checkpoint that it came to. ConfigError: the average is
// asked of a file, which holds its weights once. CheckpointError: the file itself is bad, or there is no average.
std::vector<dist::NamedTensor> read_weights_at(std::string const& path, WeightsChoice choice,
                                               std::string* origin = nullptr);
// Copies them into the model. Returns what was not there (kept as initialised): whole parts (reconstructor, editor,
// renderer), or an editor's head and light MLP that the weights' own editor was without. ConfigError: a tensor has
// another shape, or a key is not the model's (with the nearest). CheckpointError: nothing matches, a key of a part that
// is there is missing (with the nearest), or a tensor holds numbers that are none.
std::vector<std::string> load_weights(model::SceneModel& model, std::string const& path, WeightsChoice choice);
void load_tensors(model::SceneModel& model, std::vector<dist::NamedTensor> const& tensors, std::string const& origin,
                  std::vector<std::string>* missing);  // the same, but anything may be missing
// ", the nearest is X", or "" where none of the names is near.
std::string nearest_note(std::string const& name, std::vector<std::string> const& names);

struct LoadedModel {
  Config config;
  model::SceneModel model;
  std::string folder;  // the checkpoint it came from
  std::int64_t step = 0;
  bool averaged = false;  // the weights are the running average
};
// `CK` of encode, evaluate, edit: checkpoint or run folder, with the config stored in it; `overrides` on top.
LoadedModel load_checkpoint_model(std::string const& path, std::vector<std::string> const& overrides,
                                  WeightsChoice choice = WeightsChoice::automatic);

std::vector<dist::NamedTensor> model_tensors(model::SceneModel const& model);
// Identity of the reconstructor's weights: the `producer` of a pair shard.
std::string producer_of(model::SceneModel const& model);

}  // namespace duoflow::launch
