#include <CLI/CLI.hpp>

#include <fmt/format.h>

#include "data/synth/generate.h"
#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/logging.h"

namespace duoflow::launch {

Command add_synth(CLI::App& root) {
  auto options = std::make_shared<data::SynthOptions>();
  auto* app = root.add_subcommand("synth", "make scene shards of procedural objects under many lights (path traced)");
  app->add_option("--out", options->out, "output folder")->required();
  app->add_option("--objects", options->objects, "objects")->capture_default_str();
  app->add_option("--lights", options->lights, "lights per object")->capture_default_str();
  app->add_option("--views", options->views, "views per object")->capture_default_str();
  app->add_option("--size", options->size, "side of the pictures in pixels")->capture_default_str();
  app->add_option("--env-height", options->env_height, "height of the light maps")->capture_default_str();
  app->add_option("--spp", options->samples_per_pixel, "paths per pixel")->capture_default_str();
  app->add_option("--seed", options->seed, "everything follows from it")->capture_default_str();
  app->add_option("--envmaps", options->envmaps, "folder of EXR light maps to use instead of procedural ones");
  return {app, [options](dist::Runtime& runtime) {
            if (runtime.size() > 1)
              throw ConfigError("synth runs as one process (it uses all cores); start it without mpirun");
            for (auto const value : {options->objects, options->lights, options->views, options->size,
                                     options->env_height, options->samples_per_pixel})
              if (value <= 0)
                throw ConfigError(fmt::format("synth: every count and size must be positive (found {})", value));
            options->say = [](std::string const& line) { log_info(line); };
            auto const report = data::generate_scenes(*options);
            log_info(fmt::format("{} scenes, {} pictures in {} shard(s): {}", report.scenes, report.frames,
                                 report.shards.size(), options->out));
            return 0;
          }};
}

}  // namespace duoflow::launch
