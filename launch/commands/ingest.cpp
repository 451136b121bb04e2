#include <csignal>
#include <filesystem>
#include <optional>

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "data/folder_lock.h"
#include "data/ingest/ingest_lvsm.h"
#include "data/shards/shard_writer.h"
#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/logging.h"

namespace duoflow::launch {
namespace {

std::vector<std::pair<std::string, std::string>> parse_remaps(std::vector<std::string> const& texts) {
  std::vector<std::pair<std::string, std::string>> remaps;
  for (auto const& text : texts) {
    auto const equals = text.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
      throw ConfigError(fmt::format("--remap {} is not OLD=NEW (path prefixes)", text));
    // A relative NEW is meant from here, while what a list names is taken from the list's folder.
    remaps.emplace_back(text.substr(0, equals), std::filesystem::absolute(text.substr(equals + 1)).string());
  }
  return remaps;
}

void report(data::IngestReport const& census, bool dry_run) {
  for (auto const& warning : census.warnings) log_warning(data::to_line(warning));
  for (auto const& problem : census.problems) log_warning(data::to_line(problem));
  log_info(fmt::format("{}: {} objects, {} scenes, {} frames, {} ordered light pairs, {} problem(s), {} warning(s)",
                       dry_run ? "census" : "ingested", census.objects, census.scenes, census.frames, census.pairs,
                       census.problems.size(), census.warnings.size()));
}

// Ranks wait for each other only at the ends of long work, whose lengths may differ by hours.
constexpr double kPatience_s = 24 * 3600;

int ingest(data::IngestOptions& options, dist::Runtime& runtime) {
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is then a failing write, with its message
  runtime.set_timeout(kPatience_s);
  auto const communicator = runtime.communicator(dist::Device::cpu);
  bool const first = communicator.rank() == 0;
  options.worker = communicator.rank();
  options.workers = communicator.size();
  if (options.threads == 0) options.threads = at::get_num_threads();
  options.exchange = [&](std::string const& mine) { return dist::all_gather_strings(communicator, mine); };
  if (first) options.say = [](std::string const& line) { log_info(line); };
  std::optional<data::FolderLock> lock;
  options.before_writing = [&] { lock.emplace(options.out); };
  auto const census = data::ingest_lvsm(options);
  dist::barrier(communicator);  // every worker's shards are complete
  if (first) {
    if (!options.dry_run) {
      data::write_manifest(options.out, data::ShardKind::scene, census.all_shards);
      data::end_ingest(options.out);
    }
    report(census, options.dry_run);
  }
  dist::barrier(communicator);
  return 0;
}

}  // namespace

Command add_ingest(CLI::App& root) {
  auto options = std::make_shared<data::IngestOptions>();
  auto remaps = std::make_shared<std::vector<std::string>>();
  auto* app = root.add_subcommand("ingest", "make scene shards from LVSM scene folders");
  app->add_option("--scenes", options->scenes,
                  "full_list.txt, a folder that holds one or metadata/, or a plain .tar of such a folder (repeats)")
      ->required();
  app->add_option("--remap", *remaps, "OLD=NEW path prefix (repeats)");
  app->add_option("--out", options->out, "output folder");
  app->add_option("--size", options->size, "side of the pictures in pixels; 0: as the first picture")
      ->capture_default_str();
  app->add_option("--env-height", options->env_height,
                  "height of the light maps; 0: as stored, of source maps at most 256")
      ->capture_default_str();
  app->add_option("--envmaps", options->envmaps,
                  "folder of EXR or HDR light maps to store instead of the per-frame pairs: LIGHT.exr, or named by "
                  "lights.json or --renders");
  app->add_option("--renders", options->renders,
                  "folder of the source renders: OBJECT/[SPLIT/]LIGHT/env.json says map, rotation and strength");
  app->add_flag("--assume-srgb", options->assume_srgb, "take pictures that declare other colours as sRGB");
  app->add_option("--check-cameras", options->camera_sheet,
                  "PNG to draw: the world's axes and a cube over views of four objects, and how well outlines agree");
  app->add_option("--scenes-per-shard", options->scenes_per_shard, "scenes in one file")->capture_default_str();
  app->add_option("--threads", options->threads, "threads of a rank; 0: the host's cores over its ranks")
      ->check(CLI::Range(0, 4096))
      ->default_val(0);
  app->add_flag("--dry-run", options->dry_run, "only count, and report every problem");
  app->add_flag("--skip-bad", options->skip_bad, "leave bad scenes out and list them in OUT/skipped.txt");
  return {app, [options, remaps](dist::Runtime& runtime) {
            options->remaps = parse_remaps(*remaps);
            if (options->out.empty() && !options->dry_run)
              throw ConfigError("ingest: --out is missing (or give --dry-run)");
            return ingest(*options, runtime);
          }};
}

}  // namespace duoflow::launch
