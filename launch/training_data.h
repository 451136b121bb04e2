#pragma once
// TrainingData: the data folders of a run, this rank's part of each global batch, and the loader that reads ahead.
//
// The state of the order is one number: the position up to which the run has consumed it, those that data.skip passes
// over included. It is `samples` in metrics.jsonl and in checkpoints.

#include <memory>
#include <string>
#include <vector>

#include "data/loading/loader.h"
#include "data/order/skipped_positions.h"
#include "launch/config.h"
#include "launch/data_folders.h"
#include "launch/training_folders.h"

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
  // Starts at `start_position` of the order. DataError: as open_training_folder, folders whose samples are not alike,
  // fewer samples than ranks.
  TrainingData(std::vector<DataFolder> const& folders, Config const& config, int rank, int size,
               std::int64_t start_position, bool pin_memory);
  ~TrainingData();

  BatchPlan const& plan() const { return plan_; }
  data::BatchSource const& source() const { return *source_; }
  std::shared_ptr<data::BatchSource const> shared_source() const { return source_; }
  std::vector<TrainingFolder> const& folders() const { return folders_; }
  data::LatentStatistics const& latent_statistics() const { return statistics_; }  // empty: not known beforehand
  bool online() const { return !folders_.front().scene_pairs.empty(); }  // pairs of scenes, encoded in every step
  std::uint64_t samples() const { return samples_; }                     // of all folders
  std::string const& fingerprint() const { return fingerprint_; }
  std::string const& order() const { return order_; }  // described_order

  std::int64_t position_after_step(std::int64_t position) const;  // of the order, one step behind `position`

  // The batch's own positions count the samples trained on since position 0 without the skipped ones; the field
  // `position` has each sample's place in the order.
  data::Batch next();
  void release(data::Batch const& batch);
  double waited_ms() const;

 private:
  BatchPlan plan_;
  data::SkippedPositions skipped_;
  std::vector<TrainingFolder> folders_;
  std::uint64_t samples_ = 0;
  std::string fingerprint_, order_;
  data::LatentStatistics statistics_;
  std::shared_ptr<data::BatchSource const> source_;
  std::unique_ptr<data::Loader> loader_;
};

}  // namespace duoflow::launch
