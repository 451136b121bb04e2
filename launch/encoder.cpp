#include "launch/encoder.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "data/cameras.h"
#include "data/error.h"
#include "launch/batches.h"
#include "model/rays.h"

namespace duoflow::launch {
namespace {

std::vector<std::int64_t> spread(std::vector<std::int64_t> const& from, std::int64_t count) {
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < count; ++i)
    chosen.push_back(from[static_cast<std::size_t>(i * std::ssize(from) / count)]);
  return chosen;
}

std::vector<float> rows_of(std::vector<float> const& values, std::vector<std::int64_t> const& rows, std::size_t width) {
  std::vector<float> picked;
  for (auto const row : rows)
    picked.insert(picked.end(), values.begin() + row * static_cast<std::ptrdiff_t>(width),
                  values.begin() + (row + 1) * static_cast<std::ptrdiff_t>(width));
  return picked;
}

at::Tensor to_tensor(std::vector<float> const& values, std::vector<std::int64_t> const& shape) {
  return at::tensor(at::ArrayRef<float>(values)).view(shape);
}

}  // namespace

ViewSet choose_views(Config const& config, std::string const& target_frames, std::int64_t frames,
                     std::string const& object) {
  ViewSet views;
  auto check = [&](std::vector<std::int64_t> const& chosen, char const* what) {
    for (auto const frame : chosen)
      if (frame >= frames)
        throw data::DataError(
            fmt::format("object {} has frames 0 to {}, {} asks for frame {}; choose others or make more views", object,
                        frames - 1, what, frame));
  };
  std::vector<std::int64_t> all(static_cast<std::size_t>(frames));
  std::iota(all.begin(), all.end(), 0);
  views.inputs = parse_frames(config.data.input_frames, "data.input_frames");
  if (views.inputs.empty()) {
    if (frames < config.training.num_input_views)
      throw data::DataError(fmt::format(
          "object {} has {} frames, training.num_input_views = {} are needed as input; lower it or make more views",
          object, frames, config.training.num_input_views));
    views.inputs = spread(all, config.training.num_input_views);
  }
  check(views.inputs, "data.input_frames");
  views.targets = parse_frames(target_frames.empty() ? config.data.target_frames : target_frames, "target frames");
  check(views.targets, "the choice of target frames");
  if (!views.targets.empty()) return views;
  std::vector<std::int64_t> others;
  for (auto const frame : all)
    if (std::find(views.inputs.begin(), views.inputs.end(), frame) == views.inputs.end()) others.push_back(frame);
  auto const& from = others.empty() ? all : others;
  views.targets = spread(from, std::min<std::int64_t>(config.training.num_target_views, std::ssize(from)));
  return views;
}

SceneEncoder::SceneEncoder(LoadedModel const& loaded, std::string const& directory, at::Device device)
    : loaded_(loaded), device_(device), index_(std::make_shared<data::ShardIndex const>(directory)) {
  if (index_->kind() != data::ShardKind::scene)
    throw data::DataError(fmt::format(
        "{} holds pair shards, scene shards are needed; give the folder that `duoflow synth` or `duoflow ingest` wrote",
        directory));
  scenes_ = std::make_shared<data::SceneSet const>(data::load_scenes(*index_));
  reader_ = std::make_shared<data::RawReader const>(index_, data::Verify::first_touch);
  auto const size = loaded.config.model.image_size;
  if (scenes_->height != size || scenes_->width != size)
    throw data::DataError(fmt::format("{}: pictures are {} x {}, the model takes {} x {}; make the data at that size",
                                      directory, scenes_->height, scenes_->width, size, size));
}

std::vector<EncodedScene> SceneEncoder::encode(std::vector<std::int64_t> const& scenes, ViewSet const& views) const {
  auto const h = scenes_->height, w = scenes_->width, v = std::ssize(views.inputs), b = std::ssize(scenes);
  auto pixels = at::empty({b, v, h, w, 3}, at::kByte);
  std::vector<float> c2w, fxfycxcy;
  std::vector<EncodedScene> encoded(scenes.size());
  for (std::int64_t i = 0; i < b; ++i) {
    auto const& scene = scenes_->scenes[static_cast<std::size_t>(scenes[static_cast<std::size_t>(i)])];
    for (std::int64_t k = 0; k < v; ++k)
      reader_->read(scene.shard, "images", scene.first_frame + views.inputs[static_cast<std::size_t>(k)],
                    pixels[i][k].mutable_data_ptr());
    auto const frame = data::views_of_frame(views.inputs, views.targets, normalises_over_targets(loaded_.config));
    auto const norm = data::normalise_over(rows_of(scene.c2w, frame, 16));
    auto const inputs = data::apply(norm, rows_of(scene.c2w, views.inputs, 16));
    c2w.insert(c2w.end(), inputs.begin(), inputs.end());
    auto const intrinsics = rows_of(scene.fxfycxcy, views.inputs, 4);
    fxfycxcy.insert(fxfycxcy.end(), intrinsics.begin(), intrinsics.end());
    auto& out = encoded[static_cast<std::size_t>(i)];
    out.world_to_norm = data::world_to_norm(norm);
    out.target_c2w = data::apply(norm, rows_of(scene.c2w, views.targets, 16));
    out.target_fxfycxcy = rows_of(scene.fxfycxcy, views.targets, 4);
  }
  at::NoGradGuard const no_grad;
  auto const rays =
      model::pluecker_rays(to_tensor(c2w, {b, v, 4, 4}).to(device_), to_tensor(fxfycxcy, {b, v, 4}).to(device_), h, w);
  auto const latents = loaded_.model.reconstruct(image_tensor(pixels, device_), rays);
  for (std::int64_t i = 0; i < b; ++i) encoded[static_cast<std::size_t>(i)].latents = latents[i];
  return encoded;
}

}  // namespace duoflow::launch
