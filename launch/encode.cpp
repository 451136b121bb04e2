#include "launch/encode.h"

#include <fnmatch.h>

#include <algorithm>
#include <future>
#include <map>
#include <optional>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/loading/scene_lights.h"
#include "data/shards/shard_receipt.h"
#include "data/shards/shard_writer.h"
#include "launch/encoded_folder.h"
#include "launch/encoder.h"
#include "launch/logging.h"

namespace duoflow::launch {
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

// The keys that change how the same weights encode the same pictures.
std::string arithmetic_of(Config const& config) {
  auto copy = config;
  std::string text;
  for (auto const& key : config_keys(copy)) {
    std::string const& name = key.name;
    bool const reconstructor =
        name.starts_with("model.") && !name.starts_with("model.transformer.editor.") && name != "model.class_name";
    if (reconstructor || name == "training.use_amp" || name == "training.amp_dtype" || name == "dist.threads")
      text += name + ": " + key.get() + "\n";
  }
  return text;
}

class ShardEncoder {
 public:
  ShardEncoder(SceneEncoder const& encoder, LoadedModel const& loaded, EncodeOptions const& options,
               std::string producer)
      : encoder_(encoder), set_(encoder.scenes()), loaded_(loaded), options_(options), producer_(std::move(producer)) {}

  // Everything that decides the shard's bytes.
  std::string made_from(ObjectJob const& job) const {
    auto const views = views_of(job);
    auto text = fmt::format(
        "encode 1\nproducer {}\ndata {}\nobject {}\ninputs {}\ntargets {}\ntype {}\nbatch {}\ndevice {}\n", producer_,
        encoder_.fingerprint(), job.object, fmt::join(views.inputs, ","), fmt::join(views.targets, ","), options_.dtype,
        options_.batch, loaded_.model.parameters().front().tensor.device().is_cuda() ? "cuda" : "cpu");
    if (normalises_over_targets(loaded_.config)) text += "cameras normalised over the targets too\n";
    for (auto const scene : job.scenes) text += "light " + set_.scenes[static_cast<std::size_t>(scene)].light + "\n";
    return data::made_from_hash(text + arithmetic_of(loaded_.config));
  }

  // DataError: an object with too few frames, or with other cameras under another light.
  void check(ObjectJob const& job) const {
    views_of(job);
    auto const& first = set_.scenes[static_cast<std::size_t>(job.scenes.front())];
    for (auto const index : job.scenes) data::require_same_cameras(set_.scenes[static_cast<std::size_t>(index)], first);
  }

  void run(ObjectJob const& job) {
    auto const views = views_of(job);
    auto const key = made_from(job), path = options_.out + "/" + job.file;
    auto const pairs = ordered_pairs(set_, job);
    data::ShardWriter writer(path, data::ShardKind::pair, layout(job, views, std::ssize(pairs) / 2),
                             {producer_, {}, {}, note_of(key)});
    auto sum = at::zeros({loaded_.config.model.d}, at::kDouble), squares = at::zeros_like(sum);
    // Written while the next batch is read and encoded. (The future waits in its destructor: before the writer's.)
    auto writing = std::async(std::launch::async, [&] {
      write_lights_and_names(writer, job);
      writer.write("pairs", 0, std::ssize(pairs) / 2, pairs.data());
    });
    for (std::int64_t begin = 0; begin < std::ssize(job.scenes); begin += options_.batch) {
      auto rows = encode_rows(job, views, begin);
      for (auto const& latents : rows.latents) {
        auto const values = latents.to(at::kDouble);
        sum += values.sum(0);
        squares += (values * values).sum(0);
      }
      writing.get();
      writing = std::async(std::launch::async, [&, rows = std::move(rows)] { write_rows(writer, job, views, rows); });
    }
    writing.get();
    auto const count = static_cast<double>(std::ssize(job.scenes) * loaded_.config.model.n_latent_vectors);
    auto const mean = sum / count, deviation = (squares / count - mean * mean).clamp_min(1e-12).sqrt();
    writer.set_attributes({producer_, floats(mean), floats(deviation), note_of(key)});
    writer.close();
    data::write_receipt(path, key, producer_);
  }

 private:
  struct EncodedRows {
    std::int64_t first = 0;
    std::vector<EncodedScene> scenes;
    std::vector<at::Tensor> latents;  // as they are stored
  };

  ViewSet views_of(ObjectJob const& job) const {
    auto const& first = set_.scenes[static_cast<std::size_t>(job.scenes.front())];
    return choose_views(loaded_.config, options_.target_frames, first.frame_count, job.object);
  }

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

  EncodedRows encode_rows(ObjectJob const& job, ViewSet const& views, std::int64_t begin) const {
    auto const end = std::min<std::int64_t>(begin + options_.batch, std::ssize(job.scenes));
    EncodedRows rows{begin, encoder_.encode({job.scenes.begin() + begin, job.scenes.begin() + end}, views), {}};
    for (auto const& scene : rows.scenes) {
      rows.latents.push_back(scene.latents.to(at::kCPU, scalar_type()).contiguous());
      if (at::isfinite(rows.latents.back()).all().item<bool>()) continue;
      auto const row = static_cast<std::size_t>(begin) + rows.latents.size() - 1;
      throw data::DataError(fmt::format(
          "object {} light {}: latents are not finite in {} (the model is broken or the range too small); use "
          "another --dtype or checkpoint",
          job.object, set_.scenes[static_cast<std::size_t>(job.scenes[row])].light, options_.dtype));
    }
    return rows;
  }

  void write_rows(data::ShardWriter& writer, ObjectJob const& job, ViewSet const& views,
                  EncodedRows const& rows) const {
    for (std::size_t i = 0; i < rows.scenes.size(); ++i) {
      auto const& scene = rows.scenes[i];
      auto const row = rows.first + static_cast<std::int64_t>(i);
      writer.write("latents", row, 1, rows.latents[i].const_data_ptr());
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

namespace {

// Which jobs an earlier call has finished; the ranks look at a share each. Collective.
std::vector<bool> finished_jobs(dist::Communicator const& communicator, ShardEncoder const& shards,
                                std::vector<ObjectJob> const& jobs, std::string const& out) {
  std::string mine(jobs.size(), '0');
  auto const ranks = static_cast<std::size_t>(communicator.size());
  for (auto i = static_cast<std::size_t>(communicator.rank()); i < jobs.size(); i += ranks)
    if (data::is_finished(out + "/" + jobs[i].file, shards.made_from(jobs[i]))) mine[i] = '1';
  std::vector<bool> finished(jobs.size(), false);
  for (auto const& theirs : dist::all_gather_strings(communicator, mine))
    for (std::size_t i = 0; i < jobs.size(); ++i) finished[i] = finished[i] || theirs[i] == '1';
  return finished;
}

}  // namespace

void encode(dist::Communicator const& communicator, LoadedModel const& loaded, EncodeOptions const& options) {
  auto const device = loaded.model.parameters().front().tensor.device();
  SceneEncoder const encoder(loaded, options.data, device);
  std::vector<std::string> without_pairs;
  auto const jobs = plan_jobs(encoder.scenes(), options, without_pairs);
  bool const first_rank = communicator.rank() == 0;
  if (first_rank && !without_pairs.empty())
    log_warning(
        fmt::format("left out, for want of two lights with different base maps: {}", fmt::join(without_pairs, ", ")));
  auto const producer = producer_of(loaded.model);
  ShardEncoder shards(encoder, loaded, options, producer);
  std::optional<EncodedFolder> folder;
  if (first_rank) {  // one rank finds what is wrong with the scenes, and before there is a folder
    for (auto const& job : jobs) shards.check(job);
    folder.emplace(options.out, producer, options.overwrite);
  }
  dist::barrier(communicator);
  auto const finished = finished_jobs(communicator, shards, jobs, options.out);
  auto const kept = std::count(finished.begin(), finished.end(), true);
  if (first_rank && kept > 0)
    log_info(fmt::format("{} of {} shards were finished before and are kept", kept, jobs.size()));
  std::size_t turn = 0;
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    if (finished[i]) continue;
    if (static_cast<int>(turn++ % static_cast<std::size_t>(communicator.size())) != communicator.rank()) continue;
    shards.run(jobs[i]);
    log_info(fmt::format("{}: {} scenes -> {}", jobs[i].object, jobs[i].scenes.size(), jobs[i].file));
  }
  dist::barrier(communicator);
  if (first_rank) {
    std::vector<std::string> files;
    for (auto const& job : jobs) files.push_back(job.file);
    folder->finish(files);
  }
  dist::barrier(communicator);
}

}  // namespace duoflow::launch
