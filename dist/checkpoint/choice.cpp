// Which checkpoint to load, and which no longer counts.

#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/file_io.h"
#include "dist/checkpoint/folders.h"
#include "dist/checkpoint/manifest.h"
#include "dist/error.h"

namespace duoflow::dist {
namespace {

struct Choice {
  std::string folder;
  std::vector<CheckpointProblem> rejected;
};

Choice choose(std::string const& directory) {
  Choice choice;
  auto const folders = step_folders(directory);
  try {
    if (std::string const latest = read_pointer(directory, kLatest);
        !latest.empty() && !path_exists(directory + "/" + latest)) {
      choice.rejected.push_back({directory + "/" + latest, "`latest` names it, but there is no such folder"});
    }
  } catch (CheckpointError const& error) {
    choice.rejected.push_back({directory + "/" + kLatest, error.what()});
  }
  for (StepFolder const& folder : folders) {
    std::string const problem = verify_checkpoint(folder.path);
    if (problem.empty()) {
      choice.folder = folder.path;
      break;
    }
    choice.rejected.push_back({folder.path, problem});
  }
  return choice;
}

// What all ranks must see alike: the own hash of the manifest.
std::string seen_by_this_rank(std::string const& folder) {
  try {
    return read_checkpoint_manifest(folder).at("manifest_xxh3").get<std::string>();
  } catch (CheckpointError const& error) {
    return error.what();
  }
}

std::string list_rejected(std::vector<CheckpointProblem> const& rejected) {
  std::string text;
  for (auto const& [folder, problem] : rejected) text += fmt::format("; rejected {}: {}", folder, problem);
  return text;
}

}  // namespace

std::string newest_valid_checkpoint(Communicator const& communicator, std::string const& directory,
                                    std::vector<CheckpointProblem>* rejected) {
  nlohmann::json mine = nlohmann::json::object();
  if (communicator.rank() == 0) {
    try {
      Choice const choice = choose(directory);
      mine["folder"] = choice.folder;
      mine["rejected"] = nlohmann::json::array();
      for (auto const& [folder, problem] : choice.rejected) mine["rejected"].push_back({folder, problem});
    } catch (CheckpointError const& error) {
      mine = {{"failed", error.what()}};
    }
  }
  // A damaged file's text, quoted in a problem, need not be UTF-8.
  auto const replace = nlohmann::json::error_handler_t::replace;
  auto const choice =
      nlohmann::json::parse(all_gather_strings(communicator, mine.dump(-1, ' ', false, replace)).front());
  if (choice.contains("failed")) throw CheckpointError(choice["failed"].get<std::string>());
  if (rejected) {
    rejected->clear();
    for (auto const& item : choice["rejected"]) {
      rejected->push_back({item[0].get<std::string>(), item[1].get<std::string>()});
    }
  }
  auto folder = choice["folder"].get<std::string>();
  if (folder.empty()) return folder;
  auto const seen = all_gather_strings(communicator, seen_by_this_rank(folder));
  for (std::size_t r = 1; r < seen.size(); ++r) {
    if (seen[r] != seen[0]) {
      throw CheckpointError(
          fmt::format("{}: rank 0 sees manifest {}, rank {} sees {} (the folder must be the same on "
                      "all hosts)",
                      folder, seen[0], r, seen[r]));
    }
  }
  return folder;
}

std::string resolve_checkpoint(std::string const& path) {
  if (path_exists(manifest_path(path))) return path;
  auto const file = std::filesystem::path(path).filename();
  if ((file == kBest || file == kLatest) && std::filesystem::is_regular_file(path)) {
    auto const parent = parent_folder(path);
    if (auto const named = parent + "/" + read_pointer(parent, file); path_exists(manifest_path(named))) return named;
  }
  std::string const inner = path + "/checkpoints";
  std::string const directory = path_exists(inner) ? inner : path;
  std::vector<CheckpointProblem> rejected;
  std::string const folder = newest_valid_checkpoint(Communicator(), directory, &rejected);
  if (folder.empty()) {
    throw CheckpointError(fmt::format("{}: no checkpoint found (looked for {}, and for a valid step_* folder in {}{})",
                                      path, manifest_path(path), directory, list_rejected(rejected)));
  }
  return folder;
}

std::int64_t marked_best(std::string const& directory) {
  auto const name = pointer_or_none(directory, kBest);
  bool const there = !name.empty() && path_exists(manifest_path(directory + "/" + name));
  return there ? step_of_folder_name(name).value_or(-1) : -1;
}

bool has_checkpoint(std::string const& directory, std::int64_t step) {
  return path_exists(manifest_path(directory + "/" + step_folder_name(step)));
}

void set_best_checkpoint(CheckpointWriterOptions const& options, std::int64_t step) {
  auto const& directory = options.directory;
  auto const name = step_folder_name(step);
  if (!path_exists(manifest_path(directory + "/" + name)))
    throw CheckpointError(fmt::format("{}: there is no checkpoint of step {} that could be the best", directory, step));
  replace_pointer(directory, kBest, name, "mark");
  prune_checkpoints(directory, {options.keep_last, options.keep_every}, step, "mark");
}

bool looks_like_checkpoint(std::string const& folder) {
  if (step_of_folder_name(std::filesystem::path(folder + "/").parent_path().filename().string())) return true;
  if (!path_exists(folder + "/manifest.json")) return false;
  auto const manifest =
      nlohmann::json::parse(read_text_file(folder + "/manifest.json"), nullptr, /*allow_exceptions=*/false);
  return manifest.is_object() && manifest.contains("format") && manifest["format"].is_string() &&
         manifest["format"] == kCheckpointFormat;
}

std::string set_checkpoints_aside(std::string const& directory, std::int64_t after) {
  if (!path_exists(directory)) return "";
  std::vector<StepFolder> later, kept;
  for (StepFolder const& folder : step_folders(directory)) (folder.step > after ? later : kept).push_back(folder);
  if (later.empty()) return "";
  int number = 1;
  auto const aside = [&] { return fmt::format("{}.old-{}", directory, number); };
  while (path_exists(aside())) ++number;
  make_folders(aside());
  for (StepFolder const& folder : later) rename_path(folder.path, aside() + "/" + step_folder_name(folder.step));
  if (kept.empty())
    remove_tree(directory + "/latest");
  else
    replace_pointer(directory, kLatest, step_folder_name(kept.front().step), "aside");
  if (auto const best = pointer_or_none(directory, kBest); !best.empty() && !path_exists(directory + "/" + best))
    remove_tree(directory + "/" + kBest);
  sync_folder(aside());
  sync_folder(directory);
  return aside();
}

}  // namespace duoflow::dist
