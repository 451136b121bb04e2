#pragma once
// Batches: the loader's bytes become tensors the model takes. The only place that knows both.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/loading/loader.h"
#include "dist/side_stream.h"
#include "launch/config.h"
#include "model/joint_step.h"
#include "model/light_encoding.h"
#include "model/scene_model.h"

namespace duoflow::launch {

// View of one field as a tensor [samples, sample_shape...] of its own type; valid until the batch is released.
at::Tensor field_tensor(data::Batch const& batch, data::Field const& field);
at::Tensor field_tensor(data::Batch const& batch, data::BatchSource const& source, std::string const& name);

at::Tensor image_tensor(at::Tensor const& pixels_u8, at::Device device);  // [...,H,W,3] u8 -> [...,3,H,W] fp32 in [0,1]
// Linear light maps [B,h,w,3] (any float type) -> [B,1,9,H,2H]; brought to height H (bilinear) when it differs.
at::Tensor light_tensor(at::Tensor const& env, at::Tensor const& world_to_norm, std::int64_t env_height,
                        model::LightEncoding encoding, at::Device device);

struct InputPictures {
  at::Tensor image, relit, rays;  // [B,V,3,H,W] twice (relit: undefined when the source has none), [B,V,6,H,W]
};
InputPictures input_pictures(data::Batch const& batch, data::BatchSource const& source, at::Device device);

// Whether the path takes noise: an editor that starts from it, or a bridge.
bool needs_noise(Config const& config);
// [n,d] standard normal, a function of (seed, position): where EditorKind::noise_to_relit starts from, and eps of a
// bridge.
at::Tensor starting_noise(model::ModelOptions const& options, std::uint64_t seed, std::uint64_t position);

// Where the samples stand in the run's order (data/order/ordered_source.h): what their random numbers are drawn from.
std::vector<std::uint64_t> positions_of(data::Batch const& batch);

// [samples] 1 or 0, whether a sample sees its light: 0 with probability `dropout` (training.light_dropout), decided by
// (seed, position) alone; undefined where it is 0.
at::Tensor kept_lights(std::vector<std::uint64_t> const& positions, double dropout, std::uint64_t seed,
                       at::Device device);

// x0, x1 keep renderer space (pair shards), or the pictures they are encoded from are there (scene pairs); t, noise and
// kept lights from (seed, position), t zero for an editor that knows no time, noise where needs_noise. May start copies
// that read the batch's memory asynchronously (CUDA).
model::JointBatch joint_batch(data::Batch const& batch, data::BatchSource const& source, Config const& config,
                              model::LightEncoding encoding, at::Device device);
model::ReconstructionBatch reconstruction_batch(data::Batch const& batch, data::BatchSource const& source,
                                                at::Device device);

// Every tensor of a batch, defined or not, in one order.
std::vector<at::Tensor*> tensors_of(model::JointBatch& batch);
std::vector<at::Tensor*> tensors_of(model::ReconstructionBatch& batch);

// Makes batches beside the step before (CUDA): their copies from the loader's pinned slots, and what prepares them, run on
// a stream of their own while the device still computes that step; the current stream waits for them, the host for
// nothing. On the CPU they are made by the calling thread.
class BatchesBeside {
 public:
  explicit BatchesBeside(at::Device device) : stream_(device) {}
  // `make`: a callable without arguments that returns a model batch and takes no tensor from the current stream.
  template <typename Make>
  auto operator()(Make const& make) {
    auto made = [&] {
      auto const beside = stream_.unordered_scope();
      return make();
    }();
    stream_.join();
    for (at::Tensor const* tensor : tensors_of(made)) stream_.keep_for_current(*tensor);
    return made;
  }

 private:
  dist::SideStream stream_;
};

}  // namespace duoflow::launch
