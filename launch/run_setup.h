#pragma once
// What a run starts with: which parts train, the model with its weights, the flat buffer of what trains.

#include <set>
#include <string>

#include "dist/communicator.h"
#include "dist/flat_buffer.h"
#include "dist/sharded_adamw.h"
#include "launch/config.h"
#include "launch/training_data.h"
#include "model/joint_step.h"
#include "model/scene_model.h"

namespace duoflow::launch {

bool trains(Config const& config, model::Part part);
// The parts that a step runs, whether they train or not: cached latents need no reconstructor.
std::set<model::Part> running_parts(Config const& config);
// Joint: whether the render loss is ever computed (it has a weight and an image term).
bool renders_at_all(Config const& config);
model::JointLossOptions loss_options(Config const& config, model::LossNetworks const& networks = {});

// Which parts train, and of these which parameters: as the config says. ConfigError: freeze_by_rules.
void mark_trainable(model::SceneModel& model, Config const& config);

// Weights from training.init_from, else initial ones; from neither when the run resumes: what it once started from may
// be gone. Trainable parts are marked, everything lies on `device`.
model::SceneModel make_model(Config const& config, at::Device device, bool resumes);
// Slices as the ranks will share them (ZeRO-1), or by the virtual shards alone (reproducible mode), so that the layout
// and with it every sum over it is the same at any rank count.
dist::FlatBuffer make_buffer(model::SceneModel const& model, Config const& config, BatchPlan const& plan, int ranks);
// For that buffer, as the config says: by the same groups.
dist::AdamWOptions adamw_options(model::SceneModel const& model, Config const& config, double eps);

// Mean and deviation of the data's latents, which the flow sees them normalised by: the pair shards' own (of several
// folders as they are drawn), or, with online latents, those of the first samples of the order as the model encodes
// them now; they stay what they are from there on. Collective.
void set_latent_statistics(dist::Communicator const& communicator, model::SceneModel& model, TrainingData const& data);

// Pairs that another reconstructor has encoded: DataError, or a warning with data.allow_other_producer.
void check_producer(Config const& config, model::SceneModel const& model, TrainingFolder const& pairs, bool warn);

// The checkpoint to go on from; "": none. Collective. CheckpointError when --resume auto finds none valid among
// several.
std::string find_checkpoint(dist::Communicator const& communicator, std::string const& checkpoints,
                            std::string const& resume);

}  // namespace duoflow::launch
