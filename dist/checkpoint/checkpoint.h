#pragma once
// Checkpoints: one folder per step under RUN/checkpoints, valid as a whole or not at all.
//
//   RUN/checkpoints/step_000001000/model-00001-of-0000M.safetensors ...   M files; i from 1
//                                  state-00000-of-0000W.safetensors ...   one per rank that wrote; rank from 0
//                                  manifest.json
//   RUN/checkpoints/latest         the name of the newest folder and a line feed; a hint
//                                  for people, readers walk the folders
//   RUN/checkpoints/best           likewise of the one that did best, if the trainer says so; never pruned
//
// Folder names: "step_" and the step in at least nine digits. A name with ".tmp-" in it is a write that did not finish;
// the next write removes it.
//
// manifest.json, UTF-8, one object:
//   manifest_xxh3    the first key; hash of the manifest's text with sixteen "0" in this value's place
//   format           "duoflow-checkpoint"
//   format_version   1; a reader refuses a higher one
//   duoflow_version  of the program that wrote it
//   step, world_size
//   counters         the trainer's own object
//   config_yaml      text of the effective configuration
//   files            list of {name, bytes, xxh3 of the whole file}
//   tensors          list of {part: "model" | "state", file, name, dtype, shape, offset, bytes, xxh3 of these bytes};
//                    the model's before the state's, each in the trainer's order; offset counts from the file's
//                    begin; names are unique within a part
// Hashes are XXH3 (64 bits, seed 0) in sixteen lower-case hexadecimal digits. The tensor files are plain safetensors,
// the data begins at a multiple of 64 bytes. Valid means: the manifest's own hash fits; every listed file is there with
// its size and hash; the tensors in it are exactly those listed, with their type, shape, place and hash. Other files
// are ignored.
//
// Writing: every rank writes its files into step_X.tmp-ID/ and syncs them and the folder; when all are on disk rank 0
// writes manifest.json, syncs it and the folder, renames the folder once, syncs RUN/checkpoints; only then `latest`
// moves and old folders go. A step folder that exists is exchanged for the new one as a whole.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "dist/checkpoint/safetensors.h"
#include "dist/communicator.h"

namespace duoflow::dist {

struct CheckpointState {
  std::int64_t step = 0;
  std::vector<NamedTensor> model;  // fp32 masters of all parts, frozen ones and buffers too; same on every rank
  // Optimizer moments, EMA, weighting state...: the same list on every rank. What another rank writes (state_share) may
  // be on the meta device: type and shape without memory.
  std::vector<NamedTensor> state;
  std::string counters_json;  // step, samples, sampler, weighting, scaler: a JSON object
  std::string config_yaml;    // effective config
};

struct CheckpointWriterOptions {
  std::string directory;        // RUN/checkpoints; made if missing
  int keep_last = 3;            // complete checkpoints kept, at least 1; steps beyond the one written do not count
  std::int64_t keep_every = 0;  // steps that are multiples of it are never pruned; 0: none
  std::int64_t max_file_bytes = 2ll << 30;  // model tensors are split over files of about this size; no tensor is cut
};

// Writes one checkpoint; returns its folder. Collective: all ranks must call with the same step and the same tensors
// (names, types, shapes, order); each writes its share of the bytes. Any device. Throws the same CheckpointError on
// every rank if any rank failed, naming rank, host and cause; nothing is left under a final name then. If only `latest`
// or the pruning failed it throws as well and says that the checkpoint itself is complete.
std::string write_checkpoint(Communicator const& communicator, CheckpointWriterOptions const& options,
                             CheckpointState const& state);

// The tensors [first, second) of the state's list, of these sizes, are what a rank writes.
std::pair<std::size_t, std::size_t> state_share(std::vector<std::uint64_t> const& bytes, int rank, int size);

// Reads one checkpoint folder, verifying every hash; any number of ranks reads what any number wrote. Tensors are on
// the CPU in own memory. Not collective. Throws CheckpointError naming file, tensor, expected and found.
CheckpointState read_checkpoint(std::string const& folder);
// Only the model tensors (also verified; the state files are not opened).
std::vector<NamedTensor> read_checkpoint_model(std::string const& folder);

struct CheckpointProblem {
  std::string folder, problem;
};
// The newest complete and valid checkpoint of RUN/checkpoints, or "" when there is none; what was rejected and why goes
// to *rejected. Collective: rank 0 looks, all agree, and a rank that does not see the same manifest there is an error.
std::string newest_valid_checkpoint(Communicator const& communicator, std::string const& directory,
                                    std::vector<CheckpointProblem>* rejected);
// The checkpoint folder meant by `path`: itself if it has a manifest (not verified, reading does that), the one that a
// file `best` or `latest` names, else the newest
// valid checkpoint of the run folder `path` or of its checkpoints/ folder. Not collective. Throws CheckpointError.
std::string resolve_checkpoint(std::string const& path);
// The step whose checkpoint `best` names; -1: none that is there. Whether there is a checkpoint of `step` (nothing is verified).
std::int64_t marked_best(std::string const& directory);
bool has_checkpoint(std::string const& directory, std::int64_t step);
// Makes `best` name the checkpoint of `step`, and prunes: the former best may be too old by itself.
// One rank calls, while nothing is written. Throws CheckpointError.
void set_best_checkpoint(CheckpointWriterOptions const& options, std::int64_t step);
// Moves the checkpoints of RUN/checkpoints beyond step `after` (-1: all) to RUN/checkpoints.old-N, so that none of a
// branch that a run leaves is taken for its own later; returns that folder, "" when there were none. One rank calls.
// Throws CheckpointError.
std::string set_checkpoints_aside(std::string const& directory, std::int64_t after);
// What a writer that was killed after the checkpoint of `step` existed has not done: its temporary names go, `latest` names the
// step, what is too old is pruned. One rank calls, while nothing is written. Throws CheckpointError.
void finish_interrupted_write(CheckpointWriterOptions const& options, std::int64_t step);
// Whether the folder's manifest is a checkpoint's (or the folder is named as one): nothing is verified.
bool looks_like_checkpoint(std::string const& folder);
// "" if valid, else what is wrong with each file. Checks every hash.
std::string verify_checkpoint(std::string const& folder);
// Hash of the tensors whatever their order (hash of the lines "name dtype [shape] xxh3 of the bytes", sorted by name):
// what a pair shard's "producer" is.
std::string model_fingerprint(std::vector<NamedTensor> const& tensors);
// The manifest as JSON, its own hash checked.
nlohmann::json read_checkpoint_manifest(std::string const& folder);

}  // namespace duoflow::dist
