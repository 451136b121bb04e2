#include "dist/checkpoint/publication.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/file_io.h"
#include "dist/checkpoint/folders.h"
#include "dist/checkpoint/manifest.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

Manifest manifest_of(CheckpointState const& state, int world_size, std::vector<std::string> const& records) {
  Manifest manifest;
  manifest.step = state.step;
  manifest.world_size = world_size;
  manifest.duoflow_version = DUOFLOW_VERSION;
  manifest.config_yaml = state.config_yaml;
  manifest.counters = nlohmann::ordered_json::parse(state.counters_json);
  for (std::string const& text : records) {
    for (auto const& file : nlohmann::ordered_json::parse(text)) {
      manifest.files.push_back({file["name"], file["xxh3"], file["bytes"]});
      for (auto const& item : file["tensors"]) {
        manifest.tensors.push_back({file["part"], file["name"], entry_from_json(item)});
      }
    }
  }
  std::sort(manifest.files.begin(), manifest.files.end(),
            [](ManifestFile const& a, ManifestFile const& b) { return a.name < b.name; });
  // The ranks' shares of a part follow each other in list order already.
  std::stable_sort(manifest.tensors.begin(), manifest.tensors.end(),
                   [](ManifestTensor const& a, ManifestTensor const& b) { return a.part < b.part; });
  return manifest;
}

}  // namespace

Publication::Publication(CheckpointWriterOptions const& options, std::int64_t step, std::string temporary,
                         std::string id)
    : options_(options),
      step_(step),
      final_(options.directory + "/" + step_folder_name(step)),
      temporary_(std::move(temporary)),
      id_(std::move(id)) {}

void Publication::commit(CheckpointState const& state, int world_size, std::vector<std::string> const& records) {
  write_text_file(manifest_path(temporary_), manifest_text(manifest_of(state, world_size, records)));
  sync_folder(temporary_);
  publish();
  try {
    sync_folder(options_.directory);
  } catch (CheckpointError const&) {
    publish_back();
    throw;
  }
}

void Publication::publish() {
  replaced_ = path_exists(final_);
  if (replaced_) {
    swap_folders(temporary_, final_, temporary_name(final_, id_ + "-old"));
  } else {
    rename_path(temporary_, final_);
  }
}

void Publication::publish_back() {
  if (replaced_) {
    swap_folders(temporary_, final_, temporary_name(final_, id_ + "-new"));
  } else {
    rename_path(final_, temporary_);
  }
}

void Publication::finish() {
  replace_pointer(options_.directory, kLatest, step_folder_name(step_), id_);
  if (replaced_) remove_tree(temporary_);
  prune_checkpoints(options_.directory, {options_.keep_last, options_.keep_every}, step_, id_);
}

void finish_interrupted_write(CheckpointWriterOptions const& options, std::int64_t step) {
  std::string const id = "resume", name = step_folder_name(step);
  remove_leftovers(options.directory);
  if (pointer_or_none(options.directory, kLatest) != name) replace_pointer(options.directory, kLatest, name, id);
  prune_checkpoints(options.directory, {options.keep_last, options.keep_every}, step, id);
}

}  // namespace duoflow::dist
