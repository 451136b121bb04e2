#pragma once
// What all ranks must have alike before a run begins. Each difference is an error on every rank that names the ranks
// and hosts that differ, and both values. On one rank nothing is compared.

#include <string>
#include <utility>
#include <vector>

#include "dist/communicator.h"
#include "dist/runtime.h"
#include "launch/config.h"
#include "launch/trainer.h"
#include "model/scene_model.h"

namespace duoflow::launch {

struct RunIdentity {
  std::string host;
  std::string version;                                      // of the program, with its build
  std::string device;                                       // "cpu", "cuda"
  std::string run;                                          // the run folder
  std::vector<std::pair<std::string, std::string>> config;  // key, value: the effective config, and --resume
  std::string processor{};                                  // dist::hardware()
  bool reproducible = false;
};
RunIdentity run_identity(std::string const& host, Config const& config, TrainArguments const& arguments);

// Collective. Another version or build is dist::PeerError; another device or configuration, another processor in reproducible mode, or a run folder that rank 0
// writes and another rank does not see within `patience_s`, is ConfigError. Makes the run folder.
void agree_on_run(dist::Communicator const& communicator, RunIdentity const& mine, double patience_s);

// The same over the group for CPU tensors, whatever the device; what `train` begins with.
void agree_on_run(dist::Runtime& runtime, Config const& config, TrainArguments const& arguments);

// Collective. Folders with the same content may lie at different places; another content is data::DataError.
void agree_on_data(dist::Communicator const& communicator, std::string const& host, std::string const& directory,
                   std::string const& fingerprint);

// Collective. Every tensor of the model, those that train, frozen ones and buffers: other weights are ConfigError
// naming the first tensor that differs, since all ranks were told to start from the same. Before a flat buffer takes
// rank 0's.
void agree_on_weights(dist::Communicator const& communicator, std::string const& host, model::SceneModel const& model);

// Collective. The render loss's pretrained networks: ranks with other files would train to another objective.
void agree_on_loss_networks(dist::Communicator const& communicator, std::string const& host,
                            std::string const& fingerprint);

}  // namespace duoflow::launch
