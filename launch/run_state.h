#pragma once
// RunState: everything a resumed run needs to go on as if it had not been stopped, to and from a checkpoint.

#include <string>
#include <vector>

#include "dist/checkpoint/checkpoint.h"
#include "dist/flat_buffer.h"
#include "dist/sharded_adamw.h"
#include "launch/config.h"
#include "model/loss/weighting.h"
#include "model/scene_model.h"

namespace duoflow::launch {

struct Counters {
  std::int64_t step = 0, samples = 0;
  std::int64_t skips_in_a_row = 0, global_batch = 0;
  std::string data_fingerprint;
  std::int64_t schedule_ahead = 0;  // ScheduleOptions::ahead
  double first_latent_std = 0;      // CollapseGuard::first
  std::string loss_networks{};      // LoadedNetworks::fingerprint
  std::int64_t forward_passes = 0;  // micro-steps of a rank, those of the run that was imported included
};

// Views of live tensors. What the optimizer keeps is named by parameter, so any layout or world size reads it.
struct RunTensors {
  model::SceneModel& model;
  dist::FlatBuffer& buffer;
  dist::ShardedAdamW& optimizer;
  model::Weighting& weighting;
};

// Between two updates; the state is views of the run and good until the next one. Collective: the moments of ZeRO-1 are
// gathered from their owners, by each rank those that it writes (dist::state_share), into the gradient buffer; the
// others are on the meta device.
dist::CheckpointState pack_run(RunTensors const& run, Counters const& counters, Config const& config);
// Restores in place. CheckpointError: a tensor of the state missing or of another size, other data (fingerprints),
// other objective; ConfigError: the config describes another model. An imported checkpoint knows no data and no
// weighting's state: it goes on with any data, the weighting starts anew. Returns the counters; what differs between
// the stored and the present config goes to *changes, one line each.
Counters unpack_run(dist::CheckpointState const& state, RunTensors const& run, Config const& config,
                    std::string const& data_fingerprint, std::vector<std::string>* changes);
// What else the present run does otherwise than the one that wrote the checkpoint; one line each.
std::vector<std::string> changes_beside_config(Counters const& stored, std::int64_t global_batch,
                                               std::string const& loss_networks);

}  // namespace duoflow::launch
