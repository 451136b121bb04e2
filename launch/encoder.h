#pragma once
// SceneEncoder: latents of scenes, with the views and normalised cameras they are made from.

#include <memory>
#include <string>
#include <vector>

#include "data/shards/raw_reader.h"
#include "data/shards/shard_index.h"
#include "launch/model_setup.h"

namespace duoflow::launch {

// The view set of one object: which frames are inputs and which are targets.
struct ViewSet {
  std::vector<std::int64_t> inputs, targets;
};
// Config's frames, or inputs spread evenly and all others as targets (num_target_views at most, spread evenly).
// DataError naming the object when it has too few frames.
ViewSet choose_views(Config const& config, std::string const& target_frames, std::int64_t frames,
                     std::string const& object);

// One scene's cameras normalised as the config says (data.camera_frame), and its latents.
struct EncodedScene {
  at::Tensor latents;  // [n,d] fp32, on the model's device
  std::vector<float> target_c2w, target_fxfycxcy, world_to_norm;
};

class SceneEncoder {
 public:
  SceneEncoder(LoadedModel const& loaded, std::string const& directory, at::Device device);
  data::SceneSet const& scenes() const { return *scenes_; }
  data::RawReader const& reader() const { return *reader_; }
  std::string fingerprint() const { return index_->fingerprint(); }
  // Scenes with the same views (one object): latents of each, in order.
  std::vector<EncodedScene> encode(std::vector<std::int64_t> const& scenes, ViewSet const& views) const;

 private:
  LoadedModel const& loaded_;
  at::Device device_;
  std::shared_ptr<data::ShardIndex const> index_;
  std::shared_ptr<data::SceneSet const> scenes_;
  std::shared_ptr<data::RawReader const> reader_;
};

}  // namespace duoflow::launch
