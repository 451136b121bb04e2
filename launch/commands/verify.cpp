#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "data/error.h"
#include "data/shards/shard_index.h"
#include "dist/checkpoint/checkpoint.h"
#include "dist/error.h"
#include "launch/byte_progress.h"
#include "launch/commands/commands.h"

namespace duoflow::launch {
namespace {

namespace fs = std::filesystem;

int verify_data(std::string const& path, int threads) {
  ByteProgress progress("verify");
  auto const problems = data::verify_folder(
      path, {.threads = threads, .progress = [&](auto done, auto in_all) { progress.update(done, in_all); }});
  progress.finish();
  for (auto const& problem : problems) fmt::print("{}\n", problem);
  if (!problems.empty())
    throw data::DataError(
        fmt::format("{}: {} problem(s) found; make the data again or restore it from a copy", path, problems.size()));
  fmt::print("{}: every hash and every sample is as written\n", path);
  return 0;
}

int verify_one_checkpoint(std::string const& path) {
  auto const problem = dist::verify_checkpoint(path);
  if (!problem.empty())
    throw dist::CheckpointError(fmt::format("{}: {}; resume from another checkpoint", path, problem));
  fmt::print("{}: every hash is as written\n", path);
  return 0;
}

int verify_run(std::string const& checkpoints) {
  int bad = 0, seen = 0;
  for (auto const& entry : fs::directory_iterator(checkpoints)) {
    auto const name = entry.path().filename().string();
    if (!entry.is_directory() || !name.starts_with("step_") || name.find(".tmp-") != std::string::npos) continue;
    auto const problem = dist::verify_checkpoint(entry.path().string());
    fmt::print("{}: {}\n", entry.path().string(), problem.empty() ? "valid" : problem);
    ++seen;
    if (!problem.empty()) ++bad;
  }
  if (seen == 0) throw dist::CheckpointError(fmt::format("{}: no checkpoint in it", checkpoints));
  if (bad > 0)
    throw dist::CheckpointError(fmt::format("{}: {} of {} checkpoints are not valid", checkpoints, bad, seen));
  return 0;
}

}  // namespace

Command add_verify(CLI::App& root) {
  auto path = std::make_shared<std::string>();
  auto threads = std::make_shared<int>(0);
  auto* app = root.add_subcommand("verify", "check every hash of a data folder, a checkpoint or a run");
  app->add_option("path", *path, "data folder, checkpoint folder or run folder")->required();
  app->add_option("--threads", *threads, "shards of a data folder that are read at a time (0: one per core)")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  return {app, [path, threads](dist::Runtime&) {
            if (fs::exists(*path + "/checkpoints")) return verify_run(*path + "/checkpoints");
            if (dist::looks_like_checkpoint(*path)) return verify_one_checkpoint(*path);
            if (fs::exists(*path + "/latest")) return verify_run(*path);  // a checkpoints/ folder
            return verify_data(*path, *threads);
          }};
}

}  // namespace duoflow::launch
