#include <filesystem>
#include <map>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "data/shard_index.h"
#include "dist/checkpoint/checkpoint.h"
#include "launch/commands/commands.h"

namespace duoflow::launch {
namespace {

namespace fs = std::filesystem;

void print_shards(data::ShardIndex const& index) {
  for (auto const& shard : index.shards()) {
    fmt::print("  {} {:.1f} MiB xxh3 {}\n", shard.file, static_cast<double>(shard.bytes) / (1 << 20), shard.xxh3);
    for (auto const& [name, dataset] : shard.datasets)
      fmt::print("    /{} {} [{}]{}\n", name, data::to_string(dataset.spec.dtype), fmt::join(dataset.spec.shape, ","),
                 dataset.raw ? "" : " (not raw: read through HDF5)");
  }
}

void print_scenes(data::ShardIndex const& index) {
  auto const set = data::load_scenes(index);
  std::map<std::string, std::vector<std::string>> lights;
  for (auto const& scene : set.scenes) lights[scene.object].push_back(scene.light);
  fmt::print("scene shards: {} scenes of {} objects, pictures {} x {}, light maps {} x {}{}\n", set.scenes.size(),
             lights.size(), set.height, set.width, set.env_height, set.env_width,
             set.env_per_frame ? " per frame" : "");
  for (auto const& [object, names] : lights)
    fmt::print("  {}: {} lights ({} .. {})\n", object, names.size(), names.front(), names.back());
}

void print_pairs(data::ShardIndex const& index) {
  auto const set = data::load_pairs(index);
  std::map<std::string, std::set<std::string>> lights;
  for (auto const& row : set.rows) lights[row.object].insert(row.light);
  double mean = 0, deviation = 0;
  for (std::size_t c = 0; c < set.latent_mean.size(); ++c)
    mean += set.latent_mean[c] / static_cast<double>(set.latent_mean.size()),
        deviation += set.latent_std[c] / static_cast<double>(set.latent_std.size());
  fmt::print(
      "pair shards: {} ordered pairs of {} rows, latents {} x {} {}, {} targets of {} x {}, producer {}\n  latents: "
      "mean {:.4f}, standard deviation {:.4f} (averages over channels)\n",
      set.pairs.size(), set.rows.size(), set.tokens, set.dim, data::to_string(set.latent_dtype), set.targets,
      set.height, set.width, set.producer, mean, deviation);
  for (auto const& [object, names] : lights) fmt::print("  {}: {} lights\n", object, names.size());
}

void print_checkpoint(std::string const& folder) {
  auto const state = dist::read_checkpoint(folder);
  std::int64_t numbers = 0;
  for (auto const& tensor : state.model) numbers += tensor.tensor.numel();
  fmt::print("checkpoint {} (valid): step {}, {} model tensors ({:.2f} M numbers), {} state tensors\n  counters {}\n",
             folder, state.step, state.model.size(), static_cast<double>(numbers) / 1e6, state.state.size(),
             state.counters_json);
  for (auto const& tensor : state.model)
    fmt::print("    {} [{}]\n", tensor.name, fmt::join(tensor.tensor.sizes(), ","));
}

}  // namespace

Command add_inspect(CLI::App& root) {
  auto path = std::make_shared<std::string>();
  auto* app =
      root.add_subcommand("inspect", "say what a data folder, checkpoint, run folder or safetensors file holds");
  app->add_option("path", *path, "folder or file")->required();
  return {
      app, [path](dist::Runtime&) {
        if (path->ends_with(".safetensors")) {
          for (auto const& entry : dist::read_safetensors_header(*path))
            fmt::print("{} {} [{}]\n", entry.name, entry.dtype, fmt::join(entry.shape, ","));
          return 0;
        }
        if (fs::exists(*path + "/checkpoints") || fs::exists(*path + "/latest") || dist::looks_like_checkpoint(*path)) {
          print_checkpoint(dist::resolve_checkpoint(*path));
          return 0;
        }
        data::ShardIndex const index(*path);
        index.kind() == data::ShardKind::scene ? print_scenes(index) : print_pairs(index);
        print_shards(index);
        return 0;
      }};
}

}  // namespace duoflow::launch
