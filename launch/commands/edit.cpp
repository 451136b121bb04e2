#include <filesystem>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/loading/scene_lights.h"
#include "launch/batches.h"
#include "launch/commands/commands.h"
#include "launch/commands/options.h"
#include "launch/editing.h"
#include "launch/encoder.h"
#include "launch/logging.h"
#include "launch/pictures.h"
#include "model/rays.h"

namespace duoflow::launch {
namespace {

struct EditArguments {
  std::string checkpoint, data, scene, env, out, target_frames, weights = "auto";
  EditRequest request;
  double env_scale = 0;
  std::vector<std::string> overrides;
};

std::int64_t find_scene(data::SceneSet const& set, std::string const& name, std::string const& directory) {
  std::vector<std::string> names;
  for (std::int64_t i = 0; i < std::ssize(set.scenes); ++i) {
    auto const& scene = set.scenes[static_cast<std::size_t>(i)];
    names.push_back(scene.object + "_" + scene.light);
    if (names.back() == name) return i;
  }
  names.resize(std::min<std::size_t>(names.size(), 8));
  throw data::DataError(
      fmt::format("{} has no scene {} (scenes are OBJECT_LIGHT, for example {}); see `duoflow inspect {}`", directory,
                  name, fmt::join(names, ", "), directory));
}

// Without a given scale the light gets the exposure of the scene's own: the same mean luminance over the sphere.
at::Tensor load_light(EditArguments const& arguments, Config const& config, data::ImageF const& own) {
  auto map = data::resize_map(data::read_exr(arguments.env), config.env_image_size, 2 * config.env_image_size);
  auto const mean = static_cast<double>(data::mean_luminance(map));
  if (arguments.env_scale <= 0 && mean <= 0)
    throw data::DataError(
        fmt::format("{} is black everywhere (no light to edit towards); give another map", arguments.env));
  auto const scale =
      arguments.env_scale > 0 ? arguments.env_scale : static_cast<double>(data::mean_luminance(own)) / mean;
  return at::tensor(at::ArrayRef<float>(map.pixels)).view({1, map.height, map.width, 3}) * scale;
}

int edit(dist::Runtime& runtime, EditArguments const& arguments) {
  auto loaded =
      load_checkpoint_model(arguments.checkpoint, arguments.overrides, weights_choice(arguments.weights, "--weights"));
  auto const options = edit_options(loaded.config, arguments.request);
  configure(runtime, loaded.config);
  auto const device = choose_device(loaded.config.dist.device);
  loaded.model.to(device);
  SceneEncoder const encoder(loaded, arguments.data, device);
  auto const scene = find_scene(encoder.scenes(), arguments.scene, arguments.data);
  auto const& entry = encoder.scenes().scenes[static_cast<std::size_t>(scene)];
  auto const views = choose_views(loaded.config, arguments.target_frames, entry.frame_count, entry.object);
  auto const light =
      load_light(arguments, loaded.config,
                 data::scene_light(encoder.reader(), encoder.scenes(), entry, loaded.config.env_image_size));
  at::NoGradGuard const no_grad;
  auto const encoded = encoder.encode({scene}, views).front();
  auto tensor = [&](std::vector<float> const& values, std::vector<std::int64_t> const& shape) {
    return at::tensor(at::ArrayRef<float>(values)).view(shape).to(device);
  };
  auto const targets = std::ssize(views.targets);
  auto const rays = model::pluecker_rays(tensor(encoded.target_c2w, {1, targets, 4, 4}),
                                         tensor(encoded.target_fxfycxcy, {1, targets, 4}), encoder.scenes().height,
                                         encoder.scenes().width);
  auto const encoding = model::light_encoding_from_string(loaded.config.data.light_encoding);
  auto const env =
      light_tensor(light, tensor(encoded.world_to_norm, {1, 4, 4}), loaded.config.env_image_size, encoding, device);
  auto const latents = edit_latents(loaded.model, encoded.latents.unsqueeze(0), env, {0}, options);
  auto const relit = loaded.model.render(latents, rays)[0];
  std::filesystem::create_directories(arguments.out);
  for (std::int64_t t = 0; t < targets; ++t)
    data::write_png(fmt::format("{}/{:05d}.png", arguments.out, views.targets[static_cast<std::size_t>(t)]),
                    to_image(relit[t]));
  log_info(fmt::format("{} under {}: {} pictures in {}", arguments.scene, arguments.env, targets, arguments.out));
  return 0;
}

}  // namespace

Command add_edit(CLI::App& root) {
  auto arguments = std::make_shared<EditArguments>();
  auto* app = root.add_subcommand("edit", "relight one scene with an EXR light map: PNG pictures");
  app->add_option("--checkpoint", arguments->checkpoint, "checkpoint or run folder")->required();
  app->add_option("--data", arguments->data, "folder of scene shards")->required();
  app->add_option("--scene", arguments->scene, "OBJECT_LIGHT: the scene to start from")->required();
  app->add_option("--env", arguments->env, "EXR light map (equirectangular, linear, world frame, Z up)")->required();
  app->add_option("--out", arguments->out, "output folder")->required();
  app->add_option("--target-frames", arguments->target_frames,
                  "frames to render, for example 3,7 (default: the config's)");
  app->add_option("--env-scale", arguments->env_scale, "factor on the map; 0: the exposure of the scene's own light")
      ->capture_default_str();
  add_editing_options(*app, arguments->request);
  add_weights_option(*app, arguments->weights);
  app->add_option("overrides", arguments->overrides, "key=value on the checkpoint's config");
  return {app, [arguments](dist::Runtime& runtime) {
            if (runtime.size() > 1) throw ConfigError("edit runs as one process; start it without mpirun");
            return edit(runtime, *arguments);
          }};
}

}  // namespace duoflow::launch
