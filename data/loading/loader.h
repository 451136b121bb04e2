#pragma once
// Loader: threads that fill batch slots ahead of the step, in order, whatever the number of threads.
//
// A batch is a set of named byte buffers (fields), each `samples x bytes_per_sample`; the loader does not know what
// they mean. The fields come from a BatchSource, which turns one global position into the bytes of one sample.
// An exception in a reader thread surfaces at the next() of the batch it belongs to, with its message.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/cameras.h"
#include "data/shards/raw_reader.h"
#include "data/order/sampler.h"

namespace duoflow::data {

struct Field {
  std::string name;
  DType dtype = DType::u8;
  std::vector<std::int64_t> sample_shape;
  std::size_t bytes_per_sample() const;
};

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual std::vector<Field> const& fields() const = 0;
  // Writes the sample at global position `position` to `destinations` (one per field). Thread-safe.
  virtual void fill(std::uint64_t position, std::vector<std::byte*> const& destinations) const = 0;
};

struct Batch {
  std::uint64_t first_position = 0;
  std::int64_t samples = 0;
  std::map<std::string, std::byte*> fields;  // valid until release()
  std::int64_t slot = -1;
};

// Memory for slots; the launcher passes one that pins it on CUDA machines.
using Allocate = std::function<std::shared_ptr<std::byte>(std::size_t bytes)>;

struct LoaderOptions {
  int threads = 1;
  int slots = 3;
  Allocate allocate = {};  // empty: 4096-aligned host memory
};

// What one rank reads: micro-batches as (first global position, samples), in order, without end.
using Schedule = std::function<std::pair<std::uint64_t, std::int64_t>(std::uint64_t batch_number)>;

class Loader {
 public:
  Loader(std::shared_ptr<BatchSource const> source, Schedule schedule, std::int64_t max_samples,
         LoaderOptions const& options);
  ~Loader();                         // stops the threads
  Batch next();                      // blocks until the next batch is filled
  void release(Batch const& batch);  // its slot may be refilled
  double waited_ms() const;          // time the last next() blocked

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// --- the two sources -------------------------------------------------------------------------------------------------

// Pairs for the joint objective. Fields: x0, x1 (latent dtype [n,d]); target_images u8 [T,H,W,3]; target_alpha u8
// [T,H,W] (255 where the shard has none); target_c2w f32 [T,4,4]; target_fxfycxcy f32 [T,4]; env f16 [h,w,3] (light of
// x1); world_to_norm f32 [4,4]; pair i64 [1]. `targets` > 0: that many of the T target views, drawn by (seed,
// position); 0: all.
std::shared_ptr<BatchSource const> make_pair_source(std::shared_ptr<ShardIndex const> index,
                                                    std::shared_ptr<PairSet const> pairs,
                                                    std::shared_ptr<RawReader const> reader, Sampler sampler,
                                                    std::uint64_t seed, std::int64_t targets);

// Scenes, as pictures. Fields: input_images u8 [V,H,W,3]; target_images u8 [T,H,W,3]; target_alpha u8 [T,H,W];
// input_c2w f32 [V,4,4], target_c2w f32 [T,4,4] (normalised over the input views, or those and the targets);
// input_fxfycxcy [V,4], target_fxfycxcy [T,4]; scene i64 [1].
struct ViewSelection {
  std::int64_t inputs = 4, targets = 4;
  std::vector<std::int64_t> input_frames = {};   // fixed input frames; empty: drawn per sample
  std::vector<std::int64_t> target_frames = {};  // frames targets may be drawn from; empty: all frames
  bool target_has_input = true;                  // targets may be input frames too
  bool normalise_over_targets = false;           // cameras.h: views_of_frame
};
std::shared_ptr<BatchSource const> make_scene_source(std::shared_ptr<ShardIndex const> index,
                                                     std::shared_ptr<SceneSet const> scenes,
                                                     std::shared_ptr<RawReader const> reader, Sampler sampler,
                                                     std::uint64_t seed, ViewSelection const& views);

// Pairs of scenes (scene_lights.h) as pictures, for latents encoded in every step: `scene` is the number of the pair,
// the input views are those of its first scene, the targets those of its second. Also: relit_images u8 [V,H,W,3] (the
// input views under the second's light); env f16 [h,2h,3] (that light, world frame, at height `env_height`);
// world_to_norm f32 [4,4].
std::shared_ptr<BatchSource const> make_scene_pair_source(std::shared_ptr<ShardIndex const> index,
                                                          std::shared_ptr<SceneSet const> scenes,
                                                          std::vector<PairEntry> pairs,
                                                          std::shared_ptr<RawReader const> reader, Sampler sampler,
                                                          std::uint64_t seed, ViewSelection const& views,
                                                          std::int64_t env_height);

}  // namespace duoflow::data
