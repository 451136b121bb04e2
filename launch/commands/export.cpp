#include <filesystem>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "dist/checkpoint/checkpoint.h"
#include "launch/commands/commands.h"
#include "launch/config.h"
#include "launch/logging.h"
#include "launch/model_setup.h"
#include "launch/output_file.h"

namespace duoflow::launch {
namespace {

struct Arguments {
  std::string checkpoint, out, dtype = "f32";
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

int export_weights(Arguments const& arguments) {
  check_output_file(arguments.out);
  std::set<std::string> const wanted(arguments.parts.begin(), arguments.parts.end());
  auto const loaded = load_checkpoint_model(arguments.checkpoint, {});
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

}  // namespace

Command add_export(CLI::App& root) {
  auto arguments = std::make_shared<Arguments>();
  auto* app = root.add_subcommand("export", "write a checkpoint's weights to one safetensors file");
  app->add_option("checkpoint", arguments->checkpoint, "checkpoint or run folder")->required();
  app->add_option("out", arguments->out, "safetensors file to write")->required();
  app->add_option("--parts", arguments->parts, "comma-separated parts of the model")
      ->delimiter(',')
      ->check(CLI::IsMember({"reconstructor", "editor", "renderer"}));
  app->add_option("--dtype", arguments->dtype, "number type in the file")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  return {app, [arguments](dist::Runtime&) { return export_weights(*arguments); }};
}

}  // namespace duoflow::launch
