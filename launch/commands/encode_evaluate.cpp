#include <CLI/CLI.hpp>

#include "launch/commands/commands.h"
#include "launch/commands/options.h"
#include "launch/encode.h"
#include "launch/evaluator.h"

namespace duoflow::launch {

Command add_encode(CLI::App& root) {
  struct Arguments {
    std::string checkpoint, weights = "auto";
    EncodeOptions options;
    std::vector<std::string> overrides;
  };
  auto arguments = std::make_shared<Arguments>();
  auto& options = arguments->options;
  auto* app = root.add_subcommand("encode", "encode scene shards into pair shards with a trained reconstructor");
  app->add_option("--checkpoint", arguments->checkpoint, "checkpoint or run folder")->required();
  app->add_option("--data", options.data, "folder of scene shards")->required();
  app->add_option("--out", options.out, "output folder")->required();
  app->add_option("--dtype", options.dtype, "type of the stored latents")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}))
      ->capture_default_str();
  app->add_option("--lights", options.lights, "glob: only these lights")->capture_default_str();
  app->add_option("--exclude-lights", options.exclude_lights, "glob: not these lights");
  app->add_option("--target-frames", options.target_frames,
                  "frames stored as targets, for example 3,7 (default: the config's data.target_frames)");
  app->add_option("--batch", options.batch, "scenes encoded at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_flag("--overwrite", options.overwrite, "replace shards that another reconstructor encoded");
  add_weights_option(*app, arguments->weights);
  app->add_option("overrides", arguments->overrides, "key=value on the checkpoint's config");
  return {app, [arguments](dist::Runtime& runtime) {
            auto loaded = load_checkpoint_model(arguments->checkpoint, arguments->overrides,
                                                weights_choice(arguments->weights, "--weights"));
            configure(runtime, loaded.config);
            auto const device = choose_device(loaded.config.dist.device);
            loaded.model.to(device);
            encode(runtime.communicator(dist::Device::cpu), loaded, arguments->options);
            return 0;
          }};
}

Command add_evaluate(CLI::App& root) {
  struct Arguments {
    std::string checkpoint, weights = "auto";
    EvaluateOptions options;
    std::vector<std::string> overrides;
  };
  auto arguments = std::make_shared<Arguments>();
  auto& options = arguments->options;
  auto* app = root.add_subcommand("evaluate",
                                  "edit the pairs of a folder and measure: metrics.json, pairs.csv, contact_sheet.png");
  app->add_option("--checkpoint", arguments->checkpoint, "checkpoint or run folder")->required();
  app->add_option("--data", options.data, "folder of pair shards")->required();
  app->add_option("--out", options.out, "output folder")->required();
  app->add_option("--train-data", options.train_data, "pair shards of the training lights, for the mean_light_ answer");
  add_editing_options(*app, options.edit);
  app->add_option("--sweep-steps", options.sweep_steps, "also edit with each of these numbers of steps: 1,2,4,8,16")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::PositiveNumber);
  app->add_option("--sweep-solvers", options.sweep_solvers, "and with each of these solvers: euler,heun,rk4,dopri5")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember(model::solver_names()));
  app->add_option("--rows", options.sheet_rows, "rows of the contact sheet")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_weights_option(*app, arguments->weights);
  app->add_option("overrides", arguments->overrides, "key=value on the checkpoint's config");
  return {app, [arguments](dist::Runtime& runtime) {
            auto loaded = load_checkpoint_model(arguments->checkpoint, arguments->overrides,
                                                weights_choice(arguments->weights, "--weights"));
            configure(runtime, loaded.config);
            loaded.model.to(choose_device(loaded.config.dist.device));
            evaluate(runtime.communicator(dist::Device::cpu), loaded, arguments->options);
            return 0;
          }};
}

}  // namespace duoflow::launch
