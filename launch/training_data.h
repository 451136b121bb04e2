#pragma once
// TrainingData: the data folder of a run, this rank's part of each global batch, and the loader that reads ahead.

#include <memory>
#include <string>

#include "data/loader.h"
#include "dist/communicator.h"
#include "launch/config.h"

namespace duoflow::launch {

// How the global batch is divided: rank r runs `samples` positions from `first` in micro-steps of at most
// `micro_batch`. With virtual shards a micro-step is one of them, whatever the rank count.
struct BatchPlan {
  std::int64_t global_batch = 0, first = 0, samples = 0, micro_batch = 0, micro_steps = 0;
  std::int64_t shards = 1, first_shard = 0;  // of the whole batch; this rank's first. 1: none
};
// ConfigError when the global batch has fewer samples than there are ranks, or cannot be cut into
// dist.virtual_shards (reproducible mode): ranks and shards are powers of two, shards a multiple of ranks and a divisor
// of the batch, and a shard no larger than batch_size_per_gpu.
BatchPlan plan_batches(TrainingConfig const& config, DistConfig const& dist, int rank, int size);

class TrainingData {
 public:
  // Opens `directory`: pair shards for joint on cached latents, else scene shards. start_samples: samples already
  // consumed.
  // DataError: wrong kind of shard, picture or latent sizes other than the config's, fewer samples than ranks.
  TrainingData(std::string const& directory, Config const& config, int rank, int size, std::int64_t start_samples,
               bool pin_memory);
  ~TrainingData();

  BatchPlan const& plan() const { return plan_; }
  data::BatchSource const& source() const { return *source_; }
  std::shared_ptr<data::BatchSource const> shared_source() const { return source_; }
  data::PairSet const* pairs() const { return pairs_.get(); }  // null for scenes
  bool online() const { return online_; }                      // pairs of scenes, to be encoded in every step
  std::uint64_t samples() const { return samples_; }
  std::string const& fingerprint() const { return fingerprint_; }

  data::Batch next();
  void release(data::Batch const& batch);
  double waited_ms() const;

 private:
  void open_pairs(std::shared_ptr<data::ShardIndex const> const& index, Config const& config, int ranks);
  void open_scenes(std::shared_ptr<data::ShardIndex const> const& index, Config const& config, int ranks);
  data::Sampler sampler(std::string const& directory, std::uint64_t seed, std::size_t samples, int ranks);

  BatchPlan plan_;
  std::uint64_t samples_ = 0;
  bool online_ = false;
  std::string fingerprint_;
  std::shared_ptr<data::PairSet const> pairs_;
  std::shared_ptr<data::BatchSource const> source_;
  std::unique_ptr<data::Loader> loader_;
};

data::ViewSelection view_selection(Config const& config);
data::Verify verify_mode(Config const& config);

}  // namespace duoflow::launch
