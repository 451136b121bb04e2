#pragma once
// The data folders of a run: opened, checked against the config, and made into the one source that the run's order
// draws from. Private to TrainingData.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/shards/latent_statistics.h"
#include "data/loading/loader.h"
#include "data/order/mixture.h"
#include "launch/config.h"
#include "launch/data_folders.h"

namespace duoflow::launch {

struct TrainingFolder {
  std::shared_ptr<data::ShardIndex const> index;
  std::shared_ptr<data::PairSet const> pairs;    // joint on cached latents
  std::shared_ptr<data::SceneSet const> scenes;  // else, without the excluded lights
  std::vector<data::PairEntry> scene_pairs;      // of joint with online latents
  std::uint64_t samples = 0;                     // pairs, or scenes
};

// Pair shards for joint on cached latents, else scene shards. DataError: wrong kind of shard, picture or latent sizes
// other than the config's, no sample (a folder without pairs, or whose lights are all excluded).
TrainingFolder open_training_folder(std::string const& directory, Config const& config);

// By the weights given, or by the numbers of samples; null for one folder.
std::shared_ptr<data::Mixture const> mixture_of(std::vector<DataFolder> const& names,
                                                std::vector<TrainingFolder> const& folders);

// Block shuffle: data.shuffle_block_mib and its window in samples of this folder, which takes the given share of the
// window. What a sample takes is the folder's bytes over its samples; with data.shuffle = full there are no blocks.
data::BlockShuffle block_shuffle(TrainingFolder const& folder, DataConfig const& config, double share);

// The whole order: data.skip, mixture, data.shuffle.
std::shared_ptr<data::BatchSource const> make_training_source(std::vector<TrainingFolder> const& folders,
                                                              std::shared_ptr<data::Mixture const> const& mixture,
                                                              Config const& config);

// Of the latents as they are drawn: each folder's (of all its rows) by its share of the mixture. Empty for scenes, and
// for pairs that have none. DataError when one folder has them and another does not.
data::LatentStatistics mixed_statistics(std::vector<TrainingFolder> const& folders, data::Mixture const* mixture);

// Identifies the data: of one folder its own fingerprint, of several theirs, with the weights that were given. (Others
// follow from the folders and data.exclude_lights, a key that resuming reports.)
std::string fingerprint_of(std::vector<DataFolder> const& names, std::vector<TrainingFolder> const& folders,
                           data::Mixture const* mixture);

// What departs from a plain shuffle of one folder, for the log; "": nothing does.
std::string described_order(std::vector<TrainingFolder> const& folders, data::Mixture const* mixture,
                            Config const& config);

data::ViewSelection view_selection(Config const& config);
data::Verify verify_mode(Config const& config);

}  // namespace duoflow::launch
