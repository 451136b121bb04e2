#include "launch/training_data.h"

#include <fnmatch.h>

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "data/error.h"
#include "data/scene_lights.h"

namespace duoflow::launch {
namespace {

void require_kind(data::ShardIndex const& index, data::ShardKind kind, std::string const& objective) {
  if (index.kind() == kind) return;
  throw data::DataError(
      fmt::format("{} holds {} shards, objective {} needs {} shards; give the folder that `duoflow {}` wrote",
                  index.directory(), index.kind() == data::ShardKind::pair ? "pair" : "scene", objective,
                  kind == data::ShardKind::pair ? "pair" : "scene",
                  kind == data::ShardKind::pair ? "encode" : "synth` or `duoflow ingest"));
}

void require_equal(std::string const& directory, char const* what, std::int64_t found, std::int64_t expected,
                   char const* key) {
  if (found != expected)
    throw data::DataError(fmt::format(
        "{}: {} is {}, the config's {} is {} (the model cannot take it); make the data again or change the config",
        directory, what, found, key, expected));
}

void check_pairs(std::string const& directory, data::PairSet const& pairs, Config const& config) {
  require_equal(directory, "number of latent tokens", pairs.tokens, config.model.n_latent_vectors,
                "model.transformer.n_latent_vectors");
  require_equal(directory, "latent width", pairs.dim, config.model.d, "model.transformer.d");
  require_equal(directory, "picture height", pairs.height, config.model.image_size, "model.image_tokenizer.image_size");
  require_equal(directory, "picture width", pairs.width, config.model.image_size, "model.image_tokenizer.image_size");
}

data::SceneSet without_lights(data::SceneSet set, std::string const& glob) {
  if (!glob.empty())
    std::erase_if(set.scenes,
                  [&](data::SceneEntry const& scene) { return fnmatch(glob.c_str(), scene.light.c_str(), 0) == 0; });
  return set;
}

data::Allocate pinned_memory() {
  return [](std::size_t bytes) {
    auto tensor =
        at::empty({static_cast<std::int64_t>(bytes)}, at::TensorOptions().dtype(at::kByte).pinned_memory(true));
    auto* data = static_cast<std::byte*>(tensor.data_ptr());
    return std::shared_ptr<std::byte>(data, [tensor](std::byte*) {});
  };
}

}  // namespace

namespace {

bool power_of_two(std::int64_t n) { return n > 0 && (n & (n - 1)) == 0; }

void cut_into_shards(BatchPlan& plan, TrainingConfig const& config, std::int64_t shards, int rank, int size) {
  std::string const what = fmt::format("dist.reproducible with dist.virtual_shards = {} on {} ranks: ", shards, size);
  if (!power_of_two(shards) || !power_of_two(size) || size > shards)
    throw ConfigError(what +
                      "the sums follow a binary tree over the shards, so ranks and shards are powers of two and there "
                      "are at least as many shards as ranks; change one of them");
  if (config.global_batch_size == 0)
    throw ConfigError(
        what + "training.global_batch_size is not set, so the batch would change with the number of ranks; set it");
  auto const per_shard = plan.global_batch / shards;
  if (plan.global_batch % shards != 0)
    throw ConfigError(
        fmt::format("{}training.global_batch_size = {} is not a multiple of the shards; change one of them", what,
                    plan.global_batch));
  if (per_shard > config.batch_size_per_gpu)
    throw ConfigError(
        fmt::format("{}a shard has {} samples, training.batch_size_per_gpu = {} allows fewer; use {} or "
                    "more virtual shards",
                    what, per_shard, config.batch_size_per_gpu,
                    shards * ((per_shard + config.batch_size_per_gpu - 1) / config.batch_size_per_gpu)));
  plan.shards = shards;
  plan.first_shard = rank * shards / size;
  plan.micro_steps = shards / size;
  plan.micro_batch = per_shard;
}

}  // namespace

BatchPlan plan_batches(TrainingConfig const& config, DistConfig const& dist, int rank, int size) {
  BatchPlan plan;
  plan.global_batch = config.global_batch_size > 0 ? config.global_batch_size
                                                   : config.batch_size_per_gpu * size * config.grad_accum_steps;
  if (plan.global_batch < size)
    throw ConfigError(fmt::format(
        "training.global_batch_size = {} is smaller than the number of ranks, {} (a rank would have nothing to do); "
        "raise it or start fewer ranks",
        plan.global_batch, size));
  auto const [first, samples] = data::rank_block(plan.global_batch, rank, size);
  plan.first = first;
  plan.samples = samples;
  plan.micro_steps = (samples + config.batch_size_per_gpu - 1) / config.batch_size_per_gpu;
  plan.micro_batch = (samples + plan.micro_steps - 1) / plan.micro_steps;
  if (dist.reproducible) cut_into_shards(plan, config, dist.virtual_shards, rank, size);
  return plan;
}

data::ViewSelection view_selection(Config const& config) {
  data::ViewSelection views;
  views.inputs = config.training.num_input_views;
  views.targets = config.training.num_target_views;
  views.input_frames = parse_frames(config.data.input_frames, "data.input_frames");
  views.target_frames = parse_frames(config.data.target_frames, "data.target_frames");
  views.target_has_input = config.training.target_has_input;
  return views;
}

data::Verify verify_mode(Config const& config) {
  if (config.data.verify == "always") return data::Verify::always;
  return config.data.verify == "never" ? data::Verify::never : data::Verify::first_touch;
}

data::Sampler TrainingData::sampler(std::string const& directory, std::uint64_t seed, std::size_t samples, int ranks) {
  samples_ = samples;
  if (samples_ < static_cast<std::uint64_t>(ranks))
    throw data::DataError(
        fmt::format("{}: {} samples for {} ranks (every rank needs at least one); start fewer ranks or make more data",
                    directory, samples, ranks));
  return data::Sampler(seed, samples_);
}

void TrainingData::open_pairs(std::shared_ptr<data::ShardIndex const> const& index, Config const& config, int ranks) {
  auto const& directory = index->directory();
  require_kind(*index, data::ShardKind::pair, "joint");
  pairs_ = std::make_shared<data::PairSet const>(data::load_pairs(*index));
  check_pairs(directory, *pairs_, config);
  auto const seed = config.training.seed;
  auto const targets = config.training.num_target_views < pairs_->targets ? config.training.num_target_views : 0;
  source_ = data::make_pair_source(index, pairs_, std::make_shared<data::RawReader const>(index, verify_mode(config)),
                                   sampler(directory, seed, pairs_->pairs.size(), ranks), seed, targets);
}

void TrainingData::open_scenes(std::shared_ptr<data::ShardIndex const> const& index, Config const& config, int ranks) {
  auto const& directory = index->directory();
  online_ = config.objective == "joint";
  require_kind(*index, data::ShardKind::scene, online_ ? "joint with latents: online" : config.objective);
  auto const reader = std::make_shared<data::RawReader const>(index, verify_mode(config));
  auto const scenes =
      std::make_shared<data::SceneSet const>(without_lights(data::load_scenes(*index), config.data.exclude_lights));
  require_equal(directory, "picture height", scenes->height, config.model.image_size,
                "model.image_tokenizer.image_size");
  require_equal(directory, "picture width", scenes->width, config.model.image_size, "model.image_tokenizer.image_size");
  auto const seed = config.training.seed;
  auto const views = view_selection(config);
  if (online_) {
    auto pairs = data::light_pairs(*scenes);
    auto const order = sampler(directory, seed, pairs.size(), ranks);
    source_ = data::make_scene_pair_source(index, scenes, std::move(pairs), reader, order, seed, views,
                                           config.env_image_size);
  } else {
    source_ = data::make_scene_source(index, scenes, reader, sampler(directory, seed, scenes->scenes.size(), ranks),
                                      seed, views);
  }
}

TrainingData::TrainingData(std::string const& directory, Config const& config, int rank, int size,
                           std::int64_t start_samples, bool pin_memory)
    : plan_(plan_batches(config.training, config.dist, rank, size)) {
  auto const index = std::make_shared<data::ShardIndex const>(directory);
  fingerprint_ = index->fingerprint();
  if (config.objective == "joint" && config.latents == "cached")
    open_pairs(index, config, size);
  else
    open_scenes(index, config, size);
  data::LoaderOptions options;
  options.threads = config.data.threads;
  options.slots = static_cast<int>(2 * plan_.micro_steps + 2);  // this step's, the last step's on CUDA, two ahead
  if (pin_memory) options.allocate = pinned_memory();
  auto schedule = [plan = plan_, start_samples](std::uint64_t number) {
    auto const step = static_cast<std::int64_t>(number) / plan.micro_steps;  // since the start or the resume
    auto const micro = static_cast<std::int64_t>(number) % plan.micro_steps;
    auto const offset = micro * plan.micro_batch;
    return std::pair(static_cast<std::uint64_t>(start_samples + step * plan.global_batch + plan.first + offset),
                     std::min(plan.micro_batch, plan.samples - offset));
  };
  loader_ = std::make_unique<data::Loader>(source_, schedule, plan_.micro_batch, options);
}

TrainingData::~TrainingData() = default;
data::Batch TrainingData::next() { return loader_->next(); }
void TrainingData::release(data::Batch const& batch) { loader_->release(batch); }
double TrainingData::waited_ms() const { return loader_->waited_ms(); }

}  // namespace duoflow::launch
