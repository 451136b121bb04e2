#include <filesystem>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "data/tools/pair_import.h"
#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/file_io.h"
#include "dist/error.h"
#include "launch/commands/commands.h"
#include "launch/commands/options.h"
#include "launch/logging.h"
#include "launch/output_file.h"
#include "launch/pair_files.h"
#include "launch/reference_import.h"
#include "launch/weights_file.h"

namespace duoflow::launch {
namespace {

struct ImportArguments {
  std::string in, out, loss_networks, names;
  ImportRequest request;
  data::PairImportOptions pairs;
};

// What a name can begin with so that "-000000" fits behind it.
constexpr std::size_t most_prefix_bytes = data::kNameBytes - 20;

bool asks_for_a_checkpoint(ImportArguments const& arguments) {
  return arguments.request.weights_only || !arguments.request.config.empty() || !arguments.loss_networks.empty() ||
         !arguments.request.overrides.empty();
}

int import_pairs(ImportArguments arguments) {
  auto& options = arguments.pairs;
  options.out = arguments.out;
  auto const stem = std::filesystem::path(arguments.in + "/.").parent_path().stem().string();
  if (!stem.empty()) options.object_prefix = stem.substr(0, most_prefix_bytes);
  if (!arguments.names.empty()) options.names = data::read_pair_names(arguments.names);
  options.say = [](std::string const& line) { log_info(line); };
  auto const report = data::import_pairs(plain_pair_sources(arguments.in), options);
  if (options.names.empty())
    log_info(
        "every pair counts as an object of its own (--names FILE gives their names), so a split by object does not "
        "know of objects that are in several pairs");
  log_info(fmt::format("{}: {} pairs of {} x {} latents ({}) in {} shards", options.out, report.pairs, report.tokens,
                       report.dim, data::to_string(report.latent_dtype), report.shards));
  return 0;
}

void refuse_existing(std::string const& path) {
  if (dist::path_exists(path))
    throw dist::CheckpointError(
        fmt::format("{} is there already (nothing is written over); give another name, or move it away", path));
}

// The checkpoint folder has its name only when it is complete.
void write_folder(std::string const& out, Imported const& imported) {
  auto const temporary = out + ".tmp-import";
  dist::remove_tree(temporary);
  try {
    auto const written = dist::write_checkpoint({}, {.directory = temporary, .keep_last = 1}, imported.state);
    dist::write_text_file(written + "/config.yaml", imported.state.config_yaml);
    dist::sync_folder(written);
    dist::rename_path(written, out);
    dist::sync_folder(dist::parent_folder(out));
  } catch (...) {
    dist::remove_tree(temporary);
    throw;
  }
  dist::remove_tree(temporary);
}

int import_checkpoint(ImportArguments arguments) {
  auto const& pairs = arguments.pairs;
  if (!arguments.names.empty() || !pairs.producer.empty() || pairs.latent_dtype || pairs.latents_only != 0)
    throw ConfigError(
        fmt::format("import: {} is a checkpoint, and --dtype, --names, --producer and --latents-only are for pairs",
                    arguments.in));
  while (arguments.out.size() > 1 && arguments.out.ends_with('/')) arguments.out.pop_back();
  refuse_existing(arguments.out);
  if (!arguments.loss_networks.empty()) {
    check_output_file(arguments.loss_networks);
    refuse_existing(arguments.loss_networks);
  }
  FileBytes const file(arguments.in);
  model::ReferenceCheckpoint checkpoint;
  try {
    checkpoint = model::read_reference_checkpoint(file);
  } catch (model::FormatError const& error) {
    throw dist::CheckpointError(fmt::format("{}: {}", arguments.in, error.what()));
  }
  arguments.request.origin = arguments.in;
  auto const imported = import_reference(checkpoint, arguments.request);
  for (auto const& note : imported.notes) log_info(note);
  if (!imported.set_aside.empty() && !arguments.loss_networks.empty())
    write_output_file(arguments.loss_networks, imported.set_aside, {{"made_by", "duoflow import"}});
  if (!imported.set_aside.empty())
    log_info(fmt::format(
        "{} tensors set aside, the first is {}: {}", imported.set_aside.size(), imported.set_aside.front().name,
        arguments.loss_networks.empty() ? "left out (--set-aside FILE keeps them)" : "in " + arguments.loss_networks));
  write_folder(arguments.out, imported);
  log_info(fmt::format("{}: {} tensors at step {} in {}, its config in {}/config.yaml", arguments.in,
                       imported.state.model.size(), imported.state.step, arguments.out, arguments.out));
  return 0;
}

}  // namespace

Command add_import(CLI::App& root) {
  auto arguments = std::make_shared<ImportArguments>();
  auto& pairs = arguments->pairs;
  auto* app = root.add_subcommand(
      "import", "take a checkpoint of the LVSM family (.pt), or plain pairs of latents (.h5, .safetensors, .npy)");
  app->add_option("in", arguments->in,
                  ".pt file: a checkpoint, or a state dict. Pairs: an .h5 or .safetensors file, a folder with x0.npy "
                  "and x1.npy, or a folder of such files or folders, taken in the order of their names")
      ->required();
  app->add_option("out", arguments->out, "checkpoint folder or data folder to write")->required();
  app->add_option("--config", arguments->request.config,
                  "the YAML it was trained with (default: told from the tensors)")
      ->group("Checkpoints");
  app->add_option("--set-aside", arguments->loss_networks,
                  "safetensors file for what no model here holds: the loss networks (VGG, LPIPS) in its state dict")
      ->group("Checkpoints");
  app->add_flag("--weights-only", arguments->request.weights_only, "leave optimizer, schedule and counters behind")
      ->group("Checkpoints");
  app->add_option("overrides", arguments->request.overrides, "key=value, after the config (checkpoints)");
  add_latent_type_option(*app, pairs.latent_dtype);
  app->get_option("--dtype")->group("Pairs");
  app->add_option("--names", arguments->names,
                  "text file, a line per pair: object,light of x0,light of x1 (default: every pair is an object of its "
                  "own)")
      ->group("Pairs");
  app->add_option("--producer", pairs.producer,
                  "hash of the reconstructor that made the latents, which training compares (default: not known, and "
                  "training asks for data.allow_other_producer)")
      ->group("Pairs");
  app->add_option("--latents-only", pairs.latents_only,
                  "side in pixels of black pictures to put where there are none: for the velocity loss alone "
                  "(render_loss_weight 0)")
      ->check(CLI::PositiveNumber)
      ->group("Pairs");
  add_shard_size_option(*app, pairs.shard_bytes);
  app->get_option("--shard-mib")->group("Pairs");
  app->footer(
      "Pairs, for P of them (a file of one pair may leave that axis out):\n"
      "  x0, x1            needed   [P,n,d] f32, f16, bf16 (f64 is rounded to f32)\n"
      "  target_images     needed   [P,T,H,W,3] u8, under the light of x1      ) not with\n"
      "  target_c2w        needed   [P,T,4,4] OpenCV, in the latents' frame    ) --latents-only\n"
      "  target_fxfycxcy   needed   [P,T,4] pixels                             )\n"
      "  env               needed   [P,h,w,3] linear light of x1, or [L,h,w,3] with env_row [P] i64;\n"
      "                             with --latents-only black where there is none\n"
      "  target_alpha      may be   [P,T,H,W] u8 (else: no mask)\n"
      "  world_to_norm     may be   [P,4,4] (else the identity: cameras and maps share the latents' frame)\n"
      "In HDF5, 16-bit integers with the attribute dtype=\"bfloat16\" are bf16.");
  return {app, [arguments](dist::Runtime& runtime) {
            require_one_process(runtime, "import");
            return may_hold_plain_pairs(arguments->in) && !asks_for_a_checkpoint(*arguments) ? import_pairs(*arguments) : import_checkpoint(*arguments);
          }};
}

}  // namespace duoflow::launch
