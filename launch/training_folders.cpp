#include "launch/training_folders.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "data/error.h"
#include "data/order/near_pairs.h"
#include "data/order/ordered_source.h"
#include "data/loading/scene_lights.h"

namespace duoflow::launch {
namespace {

bool takes_pairs(Config const& config) { return config.objective == "joint" && config.latents == "cached"; }

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

void require_picture_size(std::string const& directory, std::int64_t height, std::int64_t width, Config const& config) {
  require_equal(directory, "picture height", height, config.model.image_size, "model.image_tokenizer.image_size");
  require_equal(directory, "picture width", width, config.model.image_size, "model.image_tokenizer.image_size");
}

void open_pairs(TrainingFolder& folder, Config const& config) {
  auto const& directory = folder.index->directory();
  require_kind(*folder.index, data::ShardKind::pair, "joint");
  folder.pairs = std::make_shared<data::PairSet const>(data::load_pairs(*folder.index));
  require_equal(directory, "number of latent tokens", folder.pairs->tokens, config.model.n_latent_vectors,
                "model.transformer.n_latent_vectors");
  require_equal(directory, "latent width", folder.pairs->dim, config.model.d, "model.transformer.d");
  require_picture_size(directory, folder.pairs->height, folder.pairs->width, config);
  folder.samples = folder.pairs->pairs.size();
  if (folder.samples == 0)
    throw data::DataError(
        fmt::format("{} has {} rows and no pair (nothing to train on); encode objects under two lights or more",
                    directory, folder.pairs->rows.size()));
}

data::SceneSet without_lights(data::SceneSet set, std::string const& glob, std::string const& directory) {
  auto const all = set.scenes.size();
  if (all == 0) throw data::DataError(fmt::format("{} has no scene (nothing to train on); make some", directory));
  if (!glob.empty())
    std::erase_if(set.scenes,
                  [&](data::SceneEntry const& scene) { return fnmatch(glob.c_str(), scene.light.c_str(), 0) == 0; });
  if (set.scenes.empty())
    throw data::DataError(
        fmt::format("{}: data.exclude_lights = {} leaves none of its {} scenes (nothing to train on); exclude fewer "
                    "lights",
                    directory, glob, all));
  return set;
}

std::vector<data::PairEntry> scene_pairs(data::SceneSet const& scenes, std::string const& directory) {
  try {
    return data::light_pairs(scenes);
  } catch (data::DataError const& error) {
    throw data::DataError(fmt::format("{}: {}", directory, error.what()));
  }
}

void open_scenes(TrainingFolder& folder, Config const& config) {
  auto const& directory = folder.index->directory();
  bool const online = config.objective == "joint";
  require_kind(*folder.index, data::ShardKind::scene, online ? "joint with latents: online" : config.objective);
  folder.scenes = std::make_shared<data::SceneSet const>(
      without_lights(data::load_scenes(*folder.index), config.data.exclude_lights, directory));
  require_picture_size(directory, folder.scenes->height, folder.scenes->width, config);
  if (online) folder.scene_pairs = scene_pairs(*folder.scenes, directory);
  folder.samples = online ? folder.scene_pairs.size() : folder.scenes->scenes.size();
}

double share_of(data::Mixture const* mixture, std::size_t folder) { return mixture ? mixture->share(folder) : 1; }

data::Sampler sampler_of(TrainingFolder const& folder, std::size_t number,
                         std::shared_ptr<data::Mixture const> const& mixture, Config const& config) {
  data::SamplerOptions options;
  options.blocks = block_shuffle(folder, config.data, share_of(mixture.get(), number));
  auto const& pairs = folder.pairs ? folder.pairs->pairs : folder.scene_pairs;
  if (options.blocks.block > 0 && !pairs.empty())
    options.neighbours = std::make_shared<std::vector<std::uint64_t> const>(data::near_pairs(pairs));
  options.mixture = mixture;
  options.folder = number;
  return data::Sampler(config.training.seed, folder.samples, options);
}

std::shared_ptr<data::BatchSource const> source_of(TrainingFolder const& folder, data::Sampler const& sampler,
                                                   Config const& config) {
  auto const seed = config.training.seed;
  auto const reader = std::make_shared<data::RawReader const>(folder.index, verify_mode(config));
  if (folder.pairs) {
    auto const wanted = config.training.num_target_views;
    return data::make_pair_source(folder.index, folder.pairs, reader, sampler, seed,
                                  wanted < folder.pairs->targets ? wanted : 0);
  }
  auto const views = view_selection(config);
  if (folder.scene_pairs.empty())
    return data::make_scene_source(folder.index, folder.scenes, reader, sampler, seed, views);
  return data::make_scene_pair_source(folder.index, folder.scenes, folder.scene_pairs, reader, sampler, seed, views,
                                      config.env_image_size);
}

}  // namespace

data::ViewSelection view_selection(Config const& config) {
  data::ViewSelection views;
  views.inputs = config.training.num_input_views;
  views.targets = config.training.num_target_views;
  views.input_frames = parse_frames(config.data.input_frames, "data.input_frames");
  views.target_frames = parse_frames(config.data.target_frames, "data.target_frames");
  views.target_has_input = config.training.target_has_input;
  views.normalise_over_targets = normalises_over_targets(config);
  return views;
}

data::Verify verify_mode(Config const& config) {
  if (config.data.verify == "always") return data::Verify::always;
  return config.data.verify == "never" ? data::Verify::never : data::Verify::first_touch;
}

TrainingFolder open_training_folder(std::string const& directory, Config const& config) {
  TrainingFolder folder;
  folder.index = std::make_shared<data::ShardIndex const>(directory);
  takes_pairs(config) ? open_pairs(folder, config) : open_scenes(folder, config);
  return folder;
}

std::shared_ptr<data::Mixture const> mixture_of(std::vector<DataFolder> const& names,
                                                std::vector<TrainingFolder> const& folders) {
  if (folders.size() == 1) return nullptr;
  std::vector<std::uint64_t> weights;
  for (std::size_t i = 0; i < folders.size(); ++i)
    weights.push_back(names[i].weight > 0 ? names[i].weight : folders[i].samples);
  return std::make_shared<data::Mixture const>(std::move(weights));
}

data::BlockShuffle block_shuffle(TrainingFolder const& folder, DataConfig const& config, double share) {
  if (config.shuffle == "full") return {};
  double bytes = 0;
  for (auto const& shard : folder.index->shards()) bytes += static_cast<double>(shard.bytes);
  auto const per_block = config.shuffle_block_mib * (1 << 20) / bytes * static_cast<double>(folder.samples);
  auto const per_window = config.shuffle_window_mib * share / config.shuffle_block_mib;
  auto const at_least_one = [](double number, double most) {
    return static_cast<std::uint64_t>(std::clamp(std::floor(number), 1.0, most));
  };
  return {at_least_one(per_block, static_cast<double>(folder.samples)), at_least_one(per_window, 0x1p40)};
}

std::shared_ptr<data::BatchSource const> make_training_source(std::vector<TrainingFolder> const& folders,
                                                              std::shared_ptr<data::Mixture const> const& mixture,
                                                              Config const& config) {
  std::vector<data::FolderSource> sources;
  for (std::size_t i = 0; i < folders.size(); ++i)
    sources.push_back(
        {folders[i].index->directory(), source_of(folders[i], sampler_of(folders[i], i, mixture, config), config)});
  return data::make_ordered_source(std::move(sources), mixture, skipped_positions(config));
}

data::LatentStatistics mixed_statistics(std::vector<TrainingFolder> const& folders, data::Mixture const* mixture) {
  std::vector<data::WeightedStatistics> parts;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    if (!folders[i].pairs) return {};
    parts.push_back({share_of(mixture, i), {folders[i].pairs->latent_mean, folders[i].pairs->latent_std}});
    if (parts[i].statistics.mean.empty() != parts[0].statistics.mean.empty())
      throw data::DataError(
          fmt::format("{} {} latent statistics and {} {} (they are needed of all folders or none); encode again",
                      folders[0].index->directory(), parts[0].statistics.mean.empty() ? "has no" : "has",
                      folders[i].index->directory(), parts[i].statistics.mean.empty() ? "has none" : "has them"));
  }
  // The numbers themselves, not their way through a sum.
  return parts.size() == 1 ? parts.front().statistics : data::pooled(parts);
}

std::string fingerprint_of(std::vector<DataFolder> const& names, std::vector<TrainingFolder> const& folders,
                           data::Mixture const* mixture) {
  if (!mixture) return folders.front().index->fingerprint();
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < folders.size(); ++i)
    parts.push_back((names[i].weight > 0 ? fmt::format("{}*", mixture->weights()[i]) : "") +
                    folders[i].index->fingerprint());
  return fmt::format("{}", fmt::join(parts, "+"));
}

std::string described_order(std::vector<TrainingFolder> const& folders, data::Mixture const* mixture,
                            Config const& config) {
  std::vector<std::string> parts;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    auto const blocks = block_shuffle(folders[i], config.data, share_of(mixture, i));
    if (mixture || blocks.block > 0)
      parts.push_back(fmt::format(
          "{}: {} samples{}{}", folders[i].index->directory(), folders[i].samples,
          mixture ? fmt::format(", {:.4g} % of those drawn", 100 * mixture->share(i)) : "",
          blocks.block > 0 ? fmt::format(", blocks of {}, {} at a time", blocks.block, blocks.window) : ""));
  }
  auto const skipped = skipped_positions(config);
  for (auto const& range : skipped.ranges())
    parts.push_back(fmt::format("samples {} to {} of the order are skipped", range.first, range.last));
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace duoflow::launch
