#pragma once
// Checkpoints: RUN/checkpoints/step_000001000/{model-00001-of-0000M.safetensors, state-0000r-of-0000W.safetensors,
// manifest.json}, and RUN/checkpoints/latest naming the newest complete one.
//
// Protocol: every rank writes its files into step_X.tmp-ID/ and syncs them; when all are on disk rank 0 writes
// manifest.json (hash of every file, of every tensor and of itself), syncs, renames the folder once, syncs the parent;
// only then `latest` moves and old checkpoints are pruned. A step folder that exists but is not valid is replaced.

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "dist/checkpoint/safetensors.h"
#include "dist/communicator.h"

namespace duoflow::dist {

struct CheckpointState {
  std::int64_t step = 0;
  std::vector<NamedTensor> model;   // fp32 masters of all parts, frozen ones and buffers too; same on every rank
  std::vector<NamedTensor> state;   // optimizer moments, EMA, weighting state...: same on every rank for now
  std::string counters_json;        // step, samples, sampler, weighting, scaler: a JSON object
  std::string config_yaml;          // effective config
};

struct CheckpointWriterOptions {
  std::string directory;     // RUN/checkpoints
  int keep_last = 3;
  std::int64_t keep_every = 0;       // steps that are multiples of it are never pruned; 0: none
  std::int64_t max_file_bytes = 2ll << 30;  // model tensors are split over files of about this size
};

// Writes one checkpoint; returns its folder. Collective: all ranks must call with the same step. The model files are
// divided over the ranks. Throws on every rank if any rank failed; nothing is left under a final name then.
std::string write_checkpoint(Communicator const& communicator, CheckpointWriterOptions const& options,
                             CheckpointState const& state);

// Reads one checkpoint folder, verifying every hash. Throws CheckpointError naming file, tensor, expected and found.
CheckpointState read_checkpoint(std::string const& folder);
// Only the model tensors (also verified).
std::vector<NamedTensor> read_checkpoint_model(std::string const& folder);

struct CheckpointProblem {
  std::string folder, problem;
};
// The newest complete and valid checkpoint of RUN/checkpoints, or "" when there is none; what was rejected and why goes to
// *rejected. Collective: rank 0 looks, all agree.
std::string newest_valid_checkpoint(Communicator const& communicator, std::string const& directory,
                                    std::vector<CheckpointProblem>* rejected);
// "" if valid, else what is wrong. Checks every hash.
std::string verify_checkpoint(std::string const& folder);
// Hash of the model tensors named (sorted by name: name, dtype, shape, bytes): what a pair shard's "producer" is.
std::string model_fingerprint(std::vector<NamedTensor> const& tensors);
nlohmann::json read_checkpoint_manifest(std::string const& folder);

}  // namespace duoflow::dist
