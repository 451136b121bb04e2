#pragma once
// Names in RUN/checkpoints: step folders, `latest`, and what an interrupted write leaves behind.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace duoflow::dist {

std::string step_folder_name(std::int64_t step);                           // step_000001000; step >= 0
std::optional<std::int64_t> step_of_folder_name(std::string const& name);  // exactly such a name, else nothing

struct StepFolder {
  std::int64_t step = 0;
  std::string path;
};
std::vector<StepFolder> step_folders(std::string const& directory);  // newest first

std::string temporary_name(std::string const& name, std::string const& id);  // NAME.tmp-ID
// What was written under temporary names, but for the folder `spared`.
void remove_leftovers(std::string const& directory, std::string const& spared = "");

// Files that hold the name of a folder: `latest`, and `best`, which pruning spares.
inline constexpr char kLatest[] = "latest", kBest[] = "best";
// "" if there is none. CheckpointError when it holds anything but the name of a step folder: a path would lead out of
// `directory`.
std::string read_pointer(std::string const& directory, std::string const& name);
std::string pointer_or_none(std::string const& directory, std::string const& name);  // "" instead of that error
void replace_pointer(std::string const& directory, std::string const& name, std::string const& folder_name, std::string const& id);

struct PruneRule {
  int keep_last = 3;  // complete checkpoints up to and with the one written, at least 1
  std::int64_t keep_every = 0;
};
// Removes step folders older than the keep_last newest complete ones, never `written`, any newer one or `best`. Complete: the
// manifest is as written and every file there with its size (a damaged folder must not push a good one out).
// A folder loses its final name before anything in it is deleted.
void prune_checkpoints(std::string const& directory, PruneRule const& rule, std::int64_t written,
                       std::string const& id);

}  // namespace duoflow::dist
