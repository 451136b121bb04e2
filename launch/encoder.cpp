#include "launch/encoder.h"

#include <fnmatch.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/cameras.h"
#include "data/environment_map.h"
#include "data/error.h"
#include "data/scene_lights.h"
#include "data/shard_writer.h"
#include "launch/batches.h"
#include "launch/logging.h"
#include "launch/training_data.h"
#include "model/rays.h"

namespace duoflow::launch {
namespace {

namespace fs = std::filesystem;

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
    auto const norm = data::normalise_over(rows_of(scene.c2w, views.inputs, 16));
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

namespace {

struct ObjectJob {
  std::string object, file;
  std::vector<std::int64_t> scenes;  // into SceneSet::scenes, sorted by light
};

std::vector<std::int64_t> ordered_pairs(data::SceneSet const& set, ObjectJob const& job) {
  std::vector<std::int64_t> pairs;
  auto scene = [&](std::size_t row) -> data::SceneEntry const& {
    return set.scenes[static_cast<std::size_t>(job.scenes[row])];
  };
  for (std::size_t a = 0; a < job.scenes.size(); ++a)
    for (std::size_t b = 0; b < job.scenes.size(); ++b)
      if (data::is_light_pair(scene(a), scene(b)))
        pairs.insert(pairs.end(), {static_cast<std::int64_t>(a), static_cast<std::int64_t>(b)});
  return pairs;
}

// Objects that no pair can be made of are left out and named.
std::vector<ObjectJob> plan_jobs(data::SceneSet const& set, EncodeOptions const& options,
                                 std::vector<std::string>& without_pairs) {
  std::map<std::string, std::map<std::string, std::int64_t>> objects;
  for (std::int64_t i = 0; i < std::ssize(set.scenes); ++i) {
    auto const& scene = set.scenes[static_cast<std::size_t>(i)];
    if (fnmatch(options.lights.c_str(), scene.light.c_str(), 0) != 0) continue;
    if (!options.exclude_lights.empty() && fnmatch(options.exclude_lights.c_str(), scene.light.c_str(), 0) == 0)
      continue;
    objects[scene.object][scene.light] = i;
  }
  std::vector<ObjectJob> jobs;
  for (auto const& [object, lights] : objects) {
    ObjectJob job{object, fmt::format("pairs-{:05d}.h5", jobs.size()), {}};
    for (auto const& [light, scene] : lights) job.scenes.push_back(scene);
    if (ordered_pairs(set, job).empty())
      without_pairs.push_back(object);
    else
      jobs.push_back(std::move(job));
  }
  if (jobs.empty() && !without_pairs.empty())
    throw data::DataError(fmt::format(
        "{}: no object has two lights with different base maps (no pair can be made); add lights", options.data));
  if (jobs.empty())
    throw data::DataError(
        fmt::format("{}: no scene's light matches --lights {} without --exclude-lights {}; see `duoflow inspect`",
                    options.data, options.lights, options.exclude_lights.empty() ? "(none)" : options.exclude_lights));
  return jobs;
}

class ShardEncoder {
 public:
  ShardEncoder(SceneEncoder const& encoder, LoadedModel const& loaded, EncodeOptions const& options,
               std::string producer)
      : encoder_(encoder), set_(encoder.scenes()), loaded_(loaded), options_(options), producer_(std::move(producer)) {}

  void run(ObjectJob const& job) {
    auto const& first = set_.scenes[static_cast<std::size_t>(job.scenes.front())];
    auto const views = choose_views(loaded_.config, options_.target_frames, first.frame_count, job.object);
    for (auto const index : job.scenes) data::require_same_cameras(set_.scenes[static_cast<std::size_t>(index)], first);
    auto const pairs = ordered_pairs(set_, job);
    data::ShardWriter writer(options_.out + "/" + job.file, data::ShardKind::pair,
                             layout(job, views, std::ssize(pairs) / 2), {producer_, {}, {}, "duoflow encode"});
    write_lights_and_names(writer, job);
    writer.write("pairs", 0, std::ssize(pairs) / 2, pairs.data());
    auto sum = at::zeros({loaded_.config.model.d}, at::kDouble), squares = at::zeros_like(sum);
    for (std::int64_t begin = 0; begin < std::ssize(job.scenes); begin += options_.batch)
      write_rows(writer, job, views, begin, std::min<std::int64_t>(begin + options_.batch, std::ssize(job.scenes)), sum,
                 squares);
    auto const count = static_cast<double>(std::ssize(job.scenes) * loaded_.config.model.n_latent_vectors);
    auto const mean = sum / count, deviation = (squares / count - mean * mean).clamp_min(1e-12).sqrt();
    writer.set_attributes({producer_, floats(mean), floats(deviation), "duoflow encode"});
    writer.close();
  }

 private:
  std::vector<data::DatasetSpec> layout(ObjectJob const& job, ViewSet const& views, std::int64_t pairs) const {
    auto const rows = std::ssize(job.scenes), targets = std::ssize(views.targets), h = set_.height, w = set_.width,
               env_h = loaded_.config.env_image_size;
    using data::DType;
    std::vector<data::DatasetSpec> specs = {{"latents",
                                             data::dtype_from_string(options_.dtype),
                                             {rows, loaded_.config.model.n_latent_vectors, loaded_.config.model.d}},
                                            {"target_images", DType::u8, {rows, targets, h, w, 3}},
                                            {"target_c2w", DType::f32, {rows, targets, 4, 4}},
                                            {"target_fxfycxcy", DType::f32, {rows, targets, 4}},
                                            {"env_row", DType::i64, {rows}},
                                            {"env", DType::f16, {rows, env_h, 2 * env_h, 3}},
                                            {"world_to_norm", DType::f32, {rows, 4, 4}},
                                            {"row/object", DType::name, {rows}},
                                            {"row/light", DType::name, {rows}},
                                            {"row/view_set", DType::i64, {rows}},
                                            {"pairs", DType::i64, {pairs, 2}}};
    if (set_.has_alpha) specs.push_back({"target_alpha", DType::u8, {rows, targets, h, w}});
    return specs;
  }

  void write_lights_and_names(data::ShardWriter& writer, ObjectJob const& job) const {
    std::vector<std::string> objects, lights;
    std::vector<std::int64_t> env_rows, view_sets(job.scenes.size(), 0);
    for (auto const scene : job.scenes) {
      auto const& entry = set_.scenes[static_cast<std::size_t>(scene)];
      auto const map = data::scene_light(encoder_.reader(), set_, entry, loaded_.config.env_image_size);
      std::vector<std::uint16_t> half(map.pixels.size());
      std::transform(map.pixels.begin(), map.pixels.end(), half.begin(), data::to_half);
      writer.write("env", std::ssize(env_rows), 1, half.data());
      env_rows.push_back(std::ssize(env_rows));
      objects.push_back(entry.object);
      lights.push_back(entry.light);
    }
    writer.write_names("row/object", objects);
    writer.write_names("row/light", lights);
    writer.write("env_row", 0, std::ssize(env_rows), env_rows.data());
    writer.write("row/view_set", 0, std::ssize(view_sets), view_sets.data());
  }

  void write_rows(data::ShardWriter& writer, ObjectJob const& job, ViewSet const& views, std::int64_t begin,
                  std::int64_t end, at::Tensor& sum, at::Tensor& squares) const {
    auto const encoded =
        encoder_.encode(std::vector<std::int64_t>(job.scenes.begin() + begin, job.scenes.begin() + end), views);
    std::vector<std::uint8_t> picture(static_cast<std::size_t>(set_.height * set_.width * 3));
    for (auto row = begin; row < end; ++row) {
      auto const& scene = encoded[static_cast<std::size_t>(row - begin)];
      auto const stored = scene.latents.to(at::kCPU, scalar_type()).contiguous();
      if (!at::isfinite(stored).all().item<bool>())
        throw data::DataError(fmt::format(
            "object {} light {}: latents are not finite in {} (the model is broken or the range too small); use "
            "another --dtype or checkpoint",
            job.object, set_.scenes[static_cast<std::size_t>(job.scenes[static_cast<std::size_t>(row)])].light,
            options_.dtype));
      writer.write("latents", row, 1, stored.const_data_ptr());
      auto const values = stored.to(at::kDouble);
      sum += values.sum(0);
      squares += (values * values).sum(0);
      writer.write("target_c2w", row, 1, scene.target_c2w.data());
      writer.write("target_fxfycxcy", row, 1, scene.target_fxfycxcy.data());
      writer.write("world_to_norm", row, 1, scene.world_to_norm.data());
      write_targets(writer, set_.scenes[static_cast<std::size_t>(job.scenes[static_cast<std::size_t>(row)])], views,
                    row);
    }
  }

  void write_targets(data::ShardWriter& writer, data::SceneEntry const& entry, ViewSet const& views,
                     std::int64_t row) const {
    auto const pixels = static_cast<std::size_t>(set_.height * set_.width);
    std::vector<std::uint8_t> images(pixels * 3 * views.targets.size()), alpha(pixels * views.targets.size());
    for (std::size_t t = 0; t < views.targets.size(); ++t) {
      encoder_.reader().read(entry.shard, "images", entry.first_frame + views.targets[t],
                             images.data() + t * pixels * 3);
      if (set_.has_alpha)
        encoder_.reader().read(entry.shard, "alpha", entry.first_frame + views.targets[t], alpha.data() + t * pixels);
    }
    writer.write("target_images", row, 1, images.data());
    if (set_.has_alpha) writer.write("target_alpha", row, 1, alpha.data());
  }

  at::ScalarType scalar_type() const {
    return options_.dtype == "bf16" ? at::kBFloat16 : options_.dtype == "f16" ? at::kHalf : at::kFloat;
  }

  static std::vector<float> floats(at::Tensor const& values) {
    auto const cpu = values.to(at::kFloat).contiguous();
    return {cpu.const_data_ptr<float>(), cpu.const_data_ptr<float>() + cpu.numel()};
  }

  SceneEncoder const& encoder_;
  data::SceneSet const& set_;
  LoadedModel const& loaded_;
  EncodeOptions const& options_;
  std::string producer_;
};

}  // namespace

void encode(dist::Communicator const& communicator, LoadedModel const& loaded, EncodeOptions const& options) {
  auto const device = loaded.model.parameters().front().tensor.device();
  SceneEncoder const encoder(loaded, options.data, device);
  std::vector<std::string> without_pairs;
  auto const jobs = plan_jobs(encoder.scenes(), options, without_pairs);
  if (communicator.rank() == 0 && !without_pairs.empty())
    log_warning(
        fmt::format("left out, for want of two lights with different base maps: {}", fmt::join(without_pairs, ", ")));
  if (communicator.rank() == 0) data::begin_folder(options.out);
  dist::barrier(communicator);
  ShardEncoder shards(encoder, loaded, options, producer_of(loaded.model));
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (static_cast<int>(i % static_cast<std::size_t>(communicator.size())) != communicator.rank()) continue;
    shards.run(jobs[i]);
    log_info(fmt::format("{}: {} scenes -> {}", jobs[i].object, jobs[i].scenes.size(), jobs[i].file));
  }
  dist::barrier(communicator);
  if (communicator.rank() == 0) {
    std::vector<std::string> files;
    for (auto const& job : jobs) files.push_back(job.file);
    data::write_manifest(options.out, data::ShardKind::pair, files);
  }
  dist::barrier(communicator);
}

}  // namespace duoflow::launch
