#include <CLI/CLI.hpp>

#include <chrono>

#include <fmt/format.h>

#include "data/error.h"
#include "data/synth/generate.h"
#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/logging.h"
#include "launch/progress.h"

namespace duoflow::launch {

namespace {

struct SynthWords {  // options given by names
  std::vector<std::string> light_kinds, materials;
  std::string mesh_up = "auto";
  bool ground = false;
};

void add_object_options(CLI::App& app, data::SynthOptions& options, SynthWords& words) {
  app.add_option("--objects", options.objects, "scenes' objects; with --meshes by default one scene a file")
      ->capture_default_str();
  app.add_option("--meshes", options.object.meshes, "mesh file or folder of them (.obj .ply .gltf .glb) instead of procedural objects");
  app.add_option("--mesh-up", words.mesh_up, "the meshes' upward axis: y, z, or auto (z in .ply, y in the others)")
      ->capture_default_str();
  app.add_option("--materials", words.materials,
                 "choose every object's finish among these: diffuse, glossy, metal, textured (default: each has its own)")
      ->delimiter(',');
  app.add_option("--per-scene", options.object.per_scene, "objects side by side in a scene")->capture_default_str();
  app.add_flag("--ground", words.ground, "a disc of ground under them");
}

void add_light_options(CLI::App& app, data::SynthOptions& options, SynthWords& words) {
  app.add_option("--lights", options.lights, "lights per object")->capture_default_str();
  app.add_option("--light-kinds", words.light_kinds, "procedural lights take turns among these: sky, area, sun-sky, studio (default: sky,area)")
      ->delimiter(',');
  app.add_option("--envmaps", options.envmaps, "folder of EXR light maps to use instead of procedural ones");
  app.add_option("--soften", options.soften_degrees, "widen bright sources of --envmaps to discs of this radius in degrees; 0 keeps them")
      ->capture_default_str();
  app.add_option("--env-height", options.env_height, "height of the light maps")->capture_default_str();
}

// On a terminal one line rewritten in place, else a plain line every half minute.
std::function<void(data::SynthProgress const&)> synth_progress() {
  return [last = std::chrono::steady_clock::now()](data::SynthProgress const& at) mutable {
    auto const text = fmt::format("synth {:.1f}%  {}  {} left", 100 * at.done, at.object,
                                  duration_text(at.seconds * (1 / std::max(at.done, 1e-6) - 1)));
    if (has_status_line()) return show_status(text);
    auto const now = std::chrono::steady_clock::now();
    if (now - last < std::chrono::seconds(30)) return;
    last = now;
    log_info(text);
  };
}

int run_synth(data::SynthOptions options, SynthWords const& words, bool objects_given) {
  if (!options.object.meshes.empty() && !objects_given) options.objects = 0;
  if (!words.light_kinds.empty() && !options.envmaps.empty())
    throw ConfigError("synth: --light-kinds and --envmaps exclude each other, give one of them");
  try {
    if (!words.light_kinds.empty()) {
      options.light_kinds.clear();
      for (auto const& name : words.light_kinds) options.light_kinds.push_back(data::light_kind(name));
    }
    for (auto const& name : words.materials) options.object.materials.push_back(data::finish_named(name));
    options.object.mesh_up = data::mesh_up(words.mesh_up);
    if (objects_given && options.objects < 1) throw data::DataError(fmt::format("objects is {} (must be 1 or more)", options.objects));
    data::check_options(options);
  } catch (data::DataError const& error) {
    throw ConfigError(fmt::format("synth: {}", error.what()));
  }
  options.object.ground = words.ground ? data::Ground::disc : data::Ground::none;
  options.say = [](std::string const& line) { log_info(line); };
  options.progress = synth_progress();
  auto const report = data::generate_scenes(options);
  show_status("");
  log_info(fmt::format("{} scenes, {} pictures in {} shard(s): {}", report.scenes, report.frames, report.shards.size(),
                       options.out));
  return 0;
}

}  // namespace

Command add_synth(CLI::App& root) {
  auto options = std::make_shared<data::SynthOptions>();
  auto words = std::make_shared<SynthWords>();
  auto* app = root.add_subcommand("synth", "make scene shards of objects under many lights (path traced)");
  app->add_option("--out", options->out, "output folder")->required();
  add_object_options(*app, *options, *words);
  add_light_options(*app, *options, *words);
  app->add_option("--views", options->views, "views per object")->capture_default_str();
  app->add_option("--size", options->size, "side of the pictures in pixels")->capture_default_str();
  app->add_option("--spp", options->samples_per_pixel, "paths per pixel")->capture_default_str();
  app->add_option("--bounces", options->bounces, "surfaces a path may meet; 1: direct light alone")->capture_default_str();
  app->add_option("--light-directions", options->light_directions,
                  "directions towards the lights from a path's first surface; -1: 16 where lights are sharp, else none")
      ->capture_default_str();
  app->add_option("--threads", options->threads, "0: all cores; the bytes do not depend on it")->capture_default_str();
  app->add_option("--seed", options->seed, "everything follows from it")->capture_default_str();
  return {app, [options, words, app](dist::Runtime& runtime) {
            if (runtime.size() > 1)
              throw ConfigError("synth runs as one process (it uses all cores); start it without mpirun");
            return run_synth(*options, *words, app->count("--objects") > 0);
          }};
}

}  // namespace duoflow::launch
