#include <filesystem>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/file_io.h"
#include "launch/commands/commands.h"
#include "launch/commands/options.h"
#include "launch/config.h"
#include "launch/logging.h"
#include "launch/model_setup.h"
#include "launch/output_file.h"
#include "launch/reference_export.h"

namespace duoflow::launch {
namespace {

struct ExportArguments {
  std::string checkpoint, out, dtype = "f32", format = "safetensors", weights = "auto", set_aside;
  std::vector<std::string> parts = {"reconstructor", "editor", "renderer"};
};

std::string part_name(model::Part part) {
  switch (part) {
    case model::Part::reconstructor:
      return "reconstructor";
    case model::Part::editor:
      return "editor";
    case model::Part::renderer:
      return "renderer";
  }
  return "";
}

int export_weights(ExportArguments const& arguments) {
  check_output_file(arguments.out);
  std::set<std::string> const wanted(arguments.parts.begin(), arguments.parts.end());
  auto const loaded = load_checkpoint_model(arguments.checkpoint, {}, weights_choice(arguments.weights, "--weights"));
  auto const type = arguments.dtype == "bf16" ? at::kBFloat16 : arguments.dtype == "f16" ? at::kHalf : at::kFloat;
  std::vector<dist::NamedTensor> tensors;
  for (auto const& parameter : loaded.model.parameters())
    if (wanted.contains(part_name(parameter.part)))
      tensors.push_back({parameter.name, parameter.tensor.detach().to(type)});
  write_output_file(arguments.out, tensors,
                    {{"made_by", fmt::format("duoflow {}", DUOFLOW_VERSION)}, {"step", std::to_string(loaded.step)}});
  log_info(fmt::format("{} tensors of {} in {}, {:.1f} MB", tensors.size(), loaded.folder, arguments.out,
                       static_cast<double>(std::filesystem::file_size(arguments.out)) / 1e6));
  return 0;
}

// A .pt file for the LVSM family's training code, which it has to the last byte or not at all.
int export_for_reference(ExportArguments const& arguments) {
  check_output_file(arguments.out);
  auto const folder = dist::resolve_checkpoint(arguments.checkpoint);
  auto const state = dist::read_checkpoint(folder);
  auto const config = parse_stored_config(state.config_yaml, folder + "/manifest.json (config)", {});
  std::vector<dist::NamedTensor> set_aside;
  if (!arguments.set_aside.empty()) set_aside = dist::read_safetensors(arguments.set_aside);
  auto const reference = export_reference(state, config, set_aside, folder);
  auto const temporary = arguments.out + ".tmp";
  if (auto const parent = std::filesystem::path(arguments.out).parent_path(); !parent.empty())
    std::filesystem::create_directories(parent);
  try {
    dist::OutputFile file(temporary);
    model::write_reference_checkpoint(reference,
                                      [&file](void const* data, std::size_t bytes) { file.write(data, bytes); });
    file.finish();
    std::filesystem::rename(temporary, arguments.out);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
  if (set_aside.empty())
    log_info(
        "no loss networks in it: a family's model with an LPIPS or VGG loss has them in its state dict and loads "
        "strictly only "
        "with them (--set-aside FILE, as import wrote it)");
  log_info(fmt::format("{} tensors of {}{} in {}", reference.model.size(), folder,
                       reference.optimizer ? ", optimizer and schedule," : ", no optimizer,", arguments.out));
  return 0;
}

}  // namespace

Command add_export(CLI::App& root) {
  auto arguments = std::make_shared<ExportArguments>();
  auto* app =
      root.add_subcommand("export", "write a checkpoint to one file: weights as safetensors, or the LVSM family's .pt");
  app->add_option("checkpoint", arguments->checkpoint, "checkpoint or run folder")->required();
  app->add_option("out", arguments->out, "file to write")->required();
  app->add_option("--parts", arguments->parts, "comma-separated parts of the model")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::IsMember({"reconstructor", "editor", "renderer"}));
  app->add_option("--dtype", arguments->dtype, "number type in the file")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  app->add_option("--format", arguments->format, "safetensors, or reference: a .pt with optimizer and counters (of the trained weights, not their average)")
      ->check(CLI::IsMember({"safetensors", "reference"}))
      ->capture_default_str();
  add_weights_option(*app, arguments->weights);
  app->add_option("--set-aside", arguments->set_aside,
                  "reference: what import had set aside, to go back into the state dict");
  return {app, [arguments, app](dist::Runtime&) {
            bool const reference = arguments->format == "reference";
            if (reference && (app->count("--parts") > 0 || app->count("--dtype") > 0))
              throw ConfigError("--format reference writes all parts in f32; leave --parts and --dtype out");
            if (reference && arguments->weights == "ema")
              throw ConfigError(
                  "--format reference writes what the optimizer goes on from, which the average is not; leave "
                  "--weights ema out, or export safetensors");
            if (!reference && !arguments->set_aside.empty())
              throw ConfigError("--set-aside belongs to --format reference; give both");
            return reference ? export_for_reference(*arguments) : export_weights(*arguments);
          }};
}

}  // namespace duoflow::launch
