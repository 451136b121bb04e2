#include "dist/checkpoint/folders.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "dist/checkpoint/file_io.h"
#include "dist/checkpoint/manifest.h"
#include "dist/error.h"
#include "text/json.h"

namespace duoflow::dist {
namespace {

constexpr char prefix[] = "step_";
constexpr char temporary_mark[] = ".tmp-";

bool is_complete(std::string const& folder) {
  try {
    Manifest const manifest = parse_manifest(read_text_file(manifest_path(folder)), manifest_path(folder));
    return std::all_of(manifest.files.begin(), manifest.files.end(), [&](ManifestFile const& file) {
      return InputFile(folder + "/" + file.name).size() == file.bytes;
    });
  } catch (CheckpointError const&) {
    return false;
  }
}

}  // namespace

std::string step_folder_name(std::int64_t step) {
  if (step < 0) throw CheckpointError(fmt::format("step {} is negative, a checkpoint needs a step from 0 on", step));
  return fmt::format("{}{:09}", prefix, step);
}

std::optional<std::int64_t> step_of_folder_name(std::string const& name) {
  if (!name.starts_with(prefix)) return std::nullopt;
  std::int64_t step = -1;
  std::from_chars(name.data() + sizeof prefix - 1, name.data() + name.size(), step);
  if (step < 0 || step_folder_name(step) != name) return std::nullopt;
  return step;
}

std::vector<StepFolder> step_folders(std::string const& directory) {
  std::vector<StepFolder> folders;
  for (std::string const& name : list_folder(directory)) {
    if (auto const step = step_of_folder_name(name)) folders.push_back({*step, directory + "/" + name});
  }
  std::sort(folders.begin(), folders.end(), [](auto const& a, auto const& b) { return a.step > b.step; });
  return folders;
}

std::string temporary_name(std::string const& name, std::string const& id) { return name + temporary_mark + id; }

void remove_leftovers(std::string const& directory, std::string const& spared) {
  for (std::string const& name : list_folder(directory)) {
    auto const mark = name.find(temporary_mark);
    if (mark == std::string::npos || directory + "/" + name == spared) continue;
    std::string const stem = name.substr(0, mark);
    if (stem == kLatest || stem == kBest || step_of_folder_name(stem)) remove_tree(directory + "/" + name);
  }
}

std::string read_pointer(std::string const& directory, std::string const& pointer) {
  std::string const path = directory + "/" + pointer;
  if (!path_exists(path)) return "";
  constexpr std::uint64_t longest = 256;
  std::string name = read_text_file(path, longest);
  name.erase(name.find_last_not_of(" \r\n") + 1);
  if (!step_of_folder_name(name)) {
    throw CheckpointError(
        fmt::format("{}: \"{}\" is not the name of a step's folder (written by hand, or damaged); remove the file",
                    path, text::printable(name)));
  }
  return name;
}

std::string pointer_or_none(std::string const& directory, std::string const& pointer) {
  try {
    return read_pointer(directory, pointer);
  } catch (CheckpointError const&) {
    return "";
  }
}

void replace_pointer(std::string const& directory, std::string const& pointer, std::string const& folder_name,
                     std::string const& id) {
  std::string const path = directory + "/" + pointer;
  replace_text_file(path, temporary_name(path, id), folder_name + "\n");
}

void prune_checkpoints(std::string const& directory, PruneRule const& rule, std::int64_t written,
                       std::string const& id) {
  int complete = 0;
  std::string const best = directory + "/" + pointer_or_none(directory, kBest);
  for (StepFolder const& folder : step_folders(directory)) {
    if (folder.step > written) continue;
    if (folder.step == written || complete < rule.keep_last) {
      complete += is_complete(folder.path) ? 1 : 0;
      continue;
    }
    if (folder.path == best) continue;
    if (rule.keep_every > 0 && folder.step % rule.keep_every == 0) continue;
    std::string const doomed = temporary_name(folder.path, id);
    rename_path(folder.path, doomed);
    remove_tree(doomed);
  }
}

}  // namespace duoflow::dist
