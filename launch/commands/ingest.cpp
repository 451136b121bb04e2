#include <filesystem>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "data/ingest_lvsm.h"
#include "data/shard_writer.h"
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
  for (auto const& problem : census.problems)
    log_warning(fmt::format("{}{}: {}", problem.scene, problem.frame < 0 ? "" : fmt::format(" frame {}", problem.frame),
                            problem.problem));
  log_info(fmt::format("{}: {} objects, {} scenes, {} frames, {} ordered light pairs, {} problem(s)",
                       dry_run ? "census" : "ingested", census.objects, census.scenes, census.frames, census.pairs,
                       census.problems.size()));
}

}  // namespace

Command add_ingest(CLI::App& root) {
  auto options = std::make_shared<data::IngestOptions>();
  auto remaps = std::make_shared<std::vector<std::string>>();
  auto* app = root.add_subcommand("ingest", "make scene shards from LVSM scene folders");
  app->add_option("--scenes", options->lists, "full_list.txt (repeats)")->required();
  app->add_option("--remap", *remaps, "OLD=NEW path prefix (repeats)");
  app->add_option("--out", options->out, "output folder");
  app->add_option("--size", options->size, "side of the pictures in pixels; 0: as the first picture")
      ->capture_default_str();
  app->add_option("--env-height", options->env_height, "height of the light maps; 0: as stored")->capture_default_str();
  app->add_option("--scenes-per-shard", options->scenes_per_shard, "scenes in one file")->capture_default_str();
  app->add_flag("--dry-run", options->dry_run, "only count, and report every problem");
  app->add_flag("--skip-bad", options->skip_bad, "leave bad scenes out and list them in OUT/skipped.txt");
  return {app, [options, remaps](dist::Runtime& runtime) {
            options->remaps = parse_remaps(*remaps);
            if (options->out.empty() && !options->dry_run)
              throw ConfigError("ingest: --out is missing (or give --dry-run)");
            auto const communicator = runtime.communicator(dist::Device::cpu);
            options->worker = communicator.rank();
            options->workers = communicator.size();
            if (communicator.rank() == 0) options->say = [](std::string const& line) { log_info(line); };
            auto const census = data::ingest_lvsm(*options);
            dist::barrier(communicator);  // every worker's shards are complete
            if (communicator.rank() == 0) {
              if (!options->dry_run) data::write_manifest(options->out, data::ShardKind::scene, census.all_shards);
              report(census, options->dry_run);
            }
            dist::barrier(communicator);
            return 0;
          }};
}

}  // namespace duoflow::launch
