#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <numeric>
#include <set>
#include <utility>

#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/loading/loader.h"
#include "data/loading/scene_lights.h"
#include "data/order/view_draw.h"

namespace duoflow::data {
namespace {

using Frames = std::vector<std::int64_t>;

constexpr std::size_t kMostLightBytes = std::size_t{512} << 20;  // of one rank

bool contains(Frames const& frames, std::int64_t frame) {
  return std::find(frames.begin(), frames.end(), frame) != frames.end();
}

void require_valid(ViewSelection const& views) {
  if (views.inputs < 1 || views.targets < 1)
    throw DataError(fmt::format("{} input and {} target views asked for (at least one of each), ask for more",
                                views.inputs, views.targets));
  if (!views.input_frames.empty() && static_cast<std::int64_t>(views.input_frames.size()) != views.inputs)
    throw DataError(fmt::format("{} input frames are named for {} input views (as many needed), correct one of them",
                                views.input_frames.size(), views.inputs));
  for (auto const* frames : {&views.input_frames, &views.target_frames})
    if (std::set<std::int64_t>(frames->begin(), frames->end()).size() != frames->size())
      throw DataError(fmt::format("frames [{}] name one twice, name each frame once", fmt::join(*frames, ",")));
}

// Where a sample's pictures come from: the input views under one light, the target views under another.
struct Relit {
  std::vector<PairEntry> pairs = {};  // empty: a sample is one scene, both lights are its own
  std::int64_t env_height = 0;
};

class SceneSource : public BatchSource {
 public:
  SceneSource(std::shared_ptr<ShardIndex const> index, std::shared_ptr<SceneSet const> scenes, Relit relit,
              std::shared_ptr<RawReader const> reader, Sampler sampler, std::uint64_t seed, ViewSelection const& views)
      : index_(std::move(index)),
        scenes_(std::move(scenes)),
        relit_(std::move(relit)),
        reader_(std::move(reader)),
        sampler_(sampler),
        seed_(seed),
        views_(views) {
    require_valid(views_);
    auto const& set = *scenes_;
    auto const samples = has_pairs() ? relit_.pairs.size() : set.scenes.size();
    if (sampler_.size() != samples)
      throw DataError(fmt::format("{}: the sampler orders {} samples (the folder has {} {}), make it for that number",
                                  index_->directory(), sampler_.size(), samples, has_pairs() ? "pairs" : "scenes"));
    for (auto const& scene : set.scenes) require_enough_frames(scene);
    fields_ = {{"input_images", DType::u8, {views_.inputs, set.height, set.width, 3}},
               {"target_images", DType::u8, {views_.targets, set.height, set.width, 3}},
               {"target_alpha", DType::u8, {views_.targets, set.height, set.width}},
               {"input_c2w", DType::f32, {views_.inputs, 4, 4}},
               {"target_c2w", DType::f32, {views_.targets, 4, 4}},
               {"input_fxfycxcy", DType::f32, {views_.inputs, 4}},
               {"target_fxfycxcy", DType::f32, {views_.targets, 4}},
               {"scene", DType::i64, {1}}};
    if (has_pairs())
      fields_.insert(fields_.end(), {{"relit_images", DType::u8, {views_.inputs, set.height, set.width, 3}},
                                     {"env", DType::f16, {relit_.env_height, 2 * relit_.env_height, 3}},
                                     {"world_to_norm", DType::f32, {4, 4}}});
    auto const all_maps =
        set.scenes.size() * static_cast<std::size_t>(relit_.env_height * relit_.env_height * 2 * 3 * 2);
    if (has_pairs() && all_maps <= kMostLightBytes) lights_ = std::vector<Light>(set.scenes.size());
  }

  std::vector<Field> const& fields() const override { return fields_; }

  void fill(std::uint64_t position, std::vector<std::byte*> const& out) const override {
    auto const number = sampler_.index_at(position);
    auto const pair = has_pairs() ? relit_.pairs[number]
                                  : PairEntry{static_cast<std::int64_t>(number), static_cast<std::int64_t>(number)};
    auto const& scene = scenes_->scenes[static_cast<std::size_t>(pair.x0)];
    auto const& target = scenes_->scenes[static_cast<std::size_t>(pair.x1)];
    auto const inputs = choose_inputs(scene, position);
    auto const targets =
        draw_distinct(target_candidates(scene, inputs), views_.targets, seed_, position, ViewStream::scene_targets);
    read_frames(scene, "images", inputs, 0, out);
    read_frames(target, "images", targets, 1, out);
    if (scenes_->has_alpha)
      read_frames(target, "alpha", targets, 2, out);
    else
      std::memset(out[2], 255, fields_[2].bytes_per_sample());
    // Without the option the model's frame is set by what it is shown; targets are seen from within it. (Qualified:
    // std::apply matches better.)
    auto const frame = views_of_frame(inputs, targets, views_.normalise_over_targets);
    auto const normalisation = normalise_over(gather(scene.c2w, frame, 16));
    copy(data::apply(normalisation, gather(scene.c2w, inputs, 16)), out[3]);
    copy(data::apply(normalisation, gather(target.c2w, targets, 16)), out[4]);
    copy(gather(scene.fxfycxcy, inputs, 4), out[5]);
    copy(gather(target.fxfycxcy, targets, 4), out[6]);
    auto const identity = static_cast<std::int64_t>(number);
    std::memcpy(out[7], &identity, sizeof(identity));
    if (!has_pairs()) return;
    read_frames(target, "images", inputs, 8, out);
    write_light(pair.x1, out[9]);
    copy(world_to_norm(normalisation), out[10]);
  }

 private:
  bool has_pairs() const { return !relit_.pairs.empty(); }

  // Rounded to half floats as in a pair shard, so that cached and online latents see one light.
  std::vector<std::uint16_t> make_light(SceneEntry const& scene) const {
    auto const map = scene_light(*reader_, *scenes_, scene, relit_.env_height);
    std::vector<std::uint16_t> half(map.pixels.size());
    std::transform(map.pixels.begin(), map.pixels.end(), half.begin(), to_half);
    return half;
  }

  // Turning and resizing a map takes longer than reading a sample's pictures: each is made once, if all have room.
  void write_light(std::int64_t scene, std::byte* out) const {
    auto const index = static_cast<std::size_t>(scene);
    if (lights_.empty()) {
      auto const map = make_light(scenes_->scenes[index]);
      std::memcpy(out, map.data(), map.size() * sizeof(map[0]));
      return;
    }
    auto& light = lights_[index];
    std::call_once(light.made, [&] { light.map = make_light(scenes_->scenes[index]); });
    std::memcpy(out, light.map.data(), light.map.size() * sizeof(light.map[0]));
  }

  static Frames all_frames(SceneEntry const& scene) {
    Frames frames(static_cast<std::size_t>(scene.frame_count));
    std::iota(frames.begin(), frames.end(), std::int64_t{0});
    return frames;
  }

  Frames choose_inputs(SceneEntry const& scene, std::uint64_t position) const {
    if (!views_.input_frames.empty()) return views_.input_frames;
    return draw_distinct(all_frames(scene), views_.inputs, seed_, position, ViewStream::scene_inputs);
  }

  Frames target_candidates(SceneEntry const& scene, Frames const& inputs) const {
    auto frames = views_.target_frames.empty() ? all_frames(scene) : views_.target_frames;
    if (!views_.target_has_input)
      frames.erase(
          std::remove_if(frames.begin(), frames.end(), [&](std::int64_t frame) { return contains(inputs, frame); }),
          frames.end());
    return frames;
  }

  // Holds for every draw of inputs: drawn inputs may take away as many candidates as there are inputs.
  void require_enough_frames(SceneEntry const& scene) const {
    auto const outside = [&](std::int64_t frame) { return frame < 0 || frame >= scene.frame_count; };
    for (auto const* frames : {&views_.input_frames, &views_.target_frames})
      for (auto const frame : *frames)
        if (outside(frame)) fail(scene, fmt::format("frame {} asked for", frame));
    if (views_.inputs > scene.frame_count) fail(scene, fmt::format("{} input views asked for", views_.inputs));
    auto left = static_cast<std::int64_t>(target_candidates(scene, views_.input_frames).size());
    if (!views_.target_has_input && views_.input_frames.empty()) left -= views_.inputs;
    if (views_.targets > left)
      fail(scene,
           fmt::format("{} target views asked for, {} to draw from", views_.targets, std::max<std::int64_t>(left, 0)));
  }

  [[noreturn]] void fail(SceneEntry const& scene, std::string const& what) const {
    throw DataError(
        fmt::format("{}/{}: scene {} under {} has {} frames ({}), ask for fewer views or leave the scene out",
                    index_->directory(), index_->shards()[static_cast<std::size_t>(scene.shard)].file, scene.object,
                    scene.light, scene.frame_count, what));
  }

  void read_frames(SceneEntry const& scene, char const* dataset, Frames const& frames, std::size_t field,
                   std::vector<std::byte*> const& out) const {
    auto const bytes = fields_[field].bytes_per_sample() / frames.size();
    for (std::size_t i = 0; i < frames.size(); ++i)
      reader_->read(scene.shard, dataset, scene.first_frame + frames[i], out[field] + i * bytes);
  }

  static std::vector<float> gather(std::vector<float> const& table, Frames const& frames, std::ptrdiff_t width) {
    std::vector<float> rows;
    for (auto const frame : frames) {
      auto const begin = table.begin() + static_cast<std::ptrdiff_t>(frame) * width;
      rows.insert(rows.end(), begin, begin + width);
    }
    return rows;
  }

  static void copy(std::vector<float> const& values, std::byte* out) {
    std::memcpy(out, values.data(), values.size() * sizeof(float));
  }

  std::shared_ptr<ShardIndex const> index_;
  std::shared_ptr<SceneSet const> scenes_;
  Relit relit_;
  std::shared_ptr<RawReader const> reader_;
  Sampler sampler_;
  std::uint64_t seed_;
  ViewSelection views_;
  std::vector<Field> fields_;
  struct Light {
    std::once_flag made;
    std::vector<std::uint16_t> map;
  };
  mutable std::vector<Light> lights_;  // by scene; empty: made anew for every sample
};

}  // namespace

std::shared_ptr<BatchSource const> make_scene_source(std::shared_ptr<ShardIndex const> index,
                                                     std::shared_ptr<SceneSet const> scenes,
                                                     std::shared_ptr<RawReader const> reader, Sampler sampler,
                                                     std::uint64_t seed, ViewSelection const& views) {
  return std::make_shared<SceneSource const>(std::move(index), std::move(scenes), Relit{}, std::move(reader), sampler,
                                             seed, views);
}

std::shared_ptr<BatchSource const> make_scene_pair_source(std::shared_ptr<ShardIndex const> index,
                                                          std::shared_ptr<SceneSet const> scenes,
                                                          std::vector<PairEntry> pairs,
                                                          std::shared_ptr<RawReader const> reader, Sampler sampler,
                                                          std::uint64_t seed, ViewSelection const& views,
                                                          std::int64_t env_height) {
  if (scenes->env_height == 0)
    throw DataError(fmt::format("{}: scenes without light maps (an editor needs them), make them with their maps",
                                index->directory()));
  return std::make_shared<SceneSource const>(std::move(index), std::move(scenes), Relit{std::move(pairs), env_height},
                                             std::move(reader), sampler, seed, views);
}

}  // namespace duoflow::data
