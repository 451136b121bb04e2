#include <CLI/CLI.hpp>

#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/fault_injection.h"
#include "launch/logging.h"
#include "launch/model_setup.h"
#include "launch/trainer.h"

namespace duoflow::launch {
namespace {

struct TrainCommand {
  std::string config;
  std::vector<std::string> data;
  TrainArguments train;
  std::vector<std::string> overrides;
};

}  // namespace

Command add_train(CLI::App& root) {
  auto arguments = std::make_shared<TrainCommand>();
  auto* app =
      root.add_subcommand("train", "train: objective reconstruction (stage 1) or joint (stage 2), as the config says");
  app->add_option("--config", arguments->config, "YAML file")->required();
  app->add_option("--data", arguments->data,
                  "folder of scene shards (reconstruction) or pair shards (joint); FOLDER=WEIGHT draws from several by "
                  "weight, without weights by their samples (repeats)")
      ->required()
      ->allow_extra_args(false);  // what follows are overrides
  app->add_option("--run", arguments->train.run, "run folder: config, log, curves, checkpoints, pictures")->required();
  app->add_option("--resume", arguments->train.resume,
                  "auto (newest valid checkpoint of --run), never, or a checkpoint or run folder")
      ->capture_default_str();
  app->add_option("overrides", arguments->overrides, "key=value, after the config file");
  return {app, [arguments](dist::Runtime& runtime) {
            auto const config = load_config(arguments->config, arguments->overrides);
            arguments->train.data = parse_data_folders(arguments->data);
            configure(runtime, config);
            inject_faults_from_environment(runtime.rank());
            runtime.catch_stop_signals();
            log_to_file(arguments->train.run + "/log.txt");
            return train(runtime, config, arguments->train);
          }};
}

}  // namespace duoflow::launch
