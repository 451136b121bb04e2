#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/fault_injection.h"
#include "launch/logging.h"
#include "launch/memory_estimate.h"
#include "launch/model_setup.h"
#include "launch/trainer.h"

namespace duoflow::launch {
namespace {

struct TrainCommand {
  std::string config;
  std::vector<std::string> data;
  TrainArguments train;
  std::vector<std::string> overrides;
  bool estimate = false;
  int ranks = 0;  // 0: those that are there
};

void check_options(TrainCommand const& command) {
  if (command.estimate) return;
  if (command.ranks > 0) throw ConfigError("--ranks belongs to --estimate; mpirun -n starts ranks");
  if (command.data.empty() || command.train.run.empty())
    throw ConfigError(fmt::format("train needs {} (only --estimate does without), give it; duoflow train --help lists the options",
                                  command.data.empty() ? "--data" : "--run"));
}

// A device that the config names is the one of the run, which this machine (where an estimate is made before a job waits in a
// queue) need not have.
bool on_cpu(Config const& config) {
  auto const& device = config.dist.device;
  return device == "cpu" || (device != "cuda" && choose_device(device).is_cpu());
}

int print_estimate(TrainCommand const& command, dist::Runtime& runtime, Config const& config) {
  int const ranks = command.ranks > 0 ? command.ranks : runtime.size();
  if (runtime.rank() == 0) {
    for (auto const& note : config.notes) log_info(note);
    fmt::print("{}\n", described(estimate_memory(config, ranks, on_cpu(config))));
  }
  return 0;
}

// Of the run that --resume goes on from: its folder's config.yaml; of a checkpoint, that of the run which it is of. None
// where there is no such file that can be read: the checkpoint itself is looked at later, by all ranks together.
std::optional<Config> begun_config(TrainArguments const& train) {
  namespace fs = std::filesystem;
  if (train.resume == "never") return std::nullopt;
  fs::path const run = train.run, from = train.resume;
  for (fs::path const& folder : train.resume == "auto" ? std::vector{run} : std::vector{from, from / ".." / ".."}) {
    std::error_code none;
    if (!fs::is_regular_file(folder / "config.yaml", none)) continue;
    std::ifstream file(folder / "config.yaml");
    std::stringstream text;
    text << file.rdbuf();
    try {
      return parse_stored_config(text.str(), (folder / "config.yaml").string(), {});
    } catch (ConfigError const&) {
      return std::nullopt;
    }
  }
  return std::nullopt;
}

}  // namespace

Command add_train(CLI::App& root) {
  auto arguments = std::make_shared<TrainCommand>();
  auto* app =
      root.add_subcommand("train", "train: objective reconstruction (stage 1) or joint (stage 2), as the config says");
  app->add_option("--config", arguments->config, "YAML file")->required();
  app->add_option("--data", arguments->data,
                  "folder of scene shards (reconstruction) or pair shards (joint); FOLDER=WEIGHT draws from several by "
                  "weight, without weights by their samples (repeats)")
      ->allow_extra_args(false);  // what follows are overrides
  app->add_option("--run", arguments->train.run, "run folder: config, log, curves, checkpoints, pictures");
  app->add_option("--profile", arguments->train.profile,
                  "time so many of the first steps stage by stage, count and trace one: RUN/profile/ (rank 0)")
      ->check(CLI::PositiveNumber);
  app->add_flag("--estimate", arguments->estimate,
                "print the memory that a rank would take with this config, and end; needs neither --data nor --run, nor, with "
                "dist.device=cuda, a GPU");
  app->add_option("--ranks", arguments->ranks, "with --estimate: of so many ranks (default: those that are started)")
      ->check(CLI::PositiveNumber);
  app->add_option("--resume", arguments->train.resume,
                  "auto (newest valid checkpoint of --run), never, or a checkpoint or run folder")
      ->capture_default_str();
  app->add_option("overrides", arguments->overrides, "key=value, after the config file");
  return {app, [arguments](dist::Runtime& runtime) {
            check_options(*arguments);
            auto config = load_config(arguments->config, arguments->overrides);
            if (auto const begun = begun_config(arguments->train)) keep_plain_objective(config, *begun);
            if (arguments->estimate) return print_estimate(*arguments, runtime, config);
            arguments->train.data = parse_data_folders(arguments->data);
            configure(runtime, config);
            inject_faults_from_environment(runtime.rank());
            runtime.catch_stop_signals();
            log_to_file(arguments->train.run + "/log.txt");
            return with_memory_advice(config, runtime.size(), on_cpu(config),
                                      [&] { return train(runtime, config, arguments->train); });
          }};
}

}  // namespace duoflow::launch
