#include <filesystem>

#include <ATen/core/Tensor.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/file_io.h"
#include "dist/error.h"
#include "launch/commands/commands.h"
#include "launch/logging.h"
#include "launch/output_file.h"
#include "launch/reference_import.h"
#include "launch/weights_file.h"

namespace duoflow::launch {
namespace {

struct ImportArguments {
  std::string in, out, loss_networks;
  ImportRequest request;
};

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
  auto* app = root.add_subcommand(
      "import", "make a checkpoint of one of the LVSM family's .pt files, optimizer and counters included");
  app->add_option("in", arguments->in, ".pt file: a checkpoint, or a state dict")->required();
  app->add_option("out", arguments->out, "checkpoint folder to write")->required();
  app->add_option("--config", arguments->request.config,
                  "the YAML it was trained with (default: told from the tensors)");
  app->add_option("--set-aside", arguments->loss_networks,
                  "safetensors file for what no model here holds: the loss networks (VGG, LPIPS) in its state dict");
  app->add_flag("--weights-only", arguments->request.weights_only, "leave optimizer, schedule and counters behind");
  app->add_option("overrides", arguments->request.overrides, "key=value, after the config");
  return {app, [arguments](dist::Runtime& runtime) {
            if (runtime.size() > 1) throw ConfigError("import runs as one process; start it without mpirun");
            return import_checkpoint(*arguments);
          }};
}

}  // namespace duoflow::launch
