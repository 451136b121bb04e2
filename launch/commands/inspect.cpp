#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "data/tools/folder_summary.h"
#include "data/shards/shard_index.h"
#include "data/tools/thumbnail_sheet.h"
#include "dist/checkpoint/checkpoint.h"
#include "launch/commands/commands.h"
#include "launch/commands/options.h"
#include "launch/config.h"
#include "launch/folder_report.h"
#include "launch/logging.h"
#include "launch/output_file.h"

namespace duoflow::launch {
namespace {

namespace fs = std::filesystem;

struct InspectArguments {
  std::string path, sheet;
  bool json = false, rows = false;
  data::SheetOptions sheet_options;
};

void write_sheet(data::ShardIndex const& index, InspectArguments const& arguments) {
  auto const sheet = data::thumbnail_sheet(index, arguments.sheet_options);
  data::write_png(arguments.sheet, sheet.image);
  std::string const left_out = sheet.objects_left_out + sheet.lights_left_out == 0
                                   ? ""
                                   : fmt::format(", {} objects and {} lights left out (--sheet-objects, "
                                                 "--sheet-lights)",
                                                 sheet.objects_left_out, sheet.lights_left_out);
  log_info(fmt::format("{}: {} objects under {} lights{}", arguments.sheet, sheet.objects, sheet.lights, left_out));
}

int inspect_data(InspectArguments const& arguments) {
  if (!arguments.sheet.empty()) check_output_file(arguments.sheet);
  data::ShardIndex const index(arguments.path);
  auto const summary = data::summarise(index);
  std::optional<data::LatentSummary> latents;
  if (arguments.rows) latents = data::summarise_latents(index);
  if (!arguments.sheet.empty()) write_sheet(index, arguments);
  fmt::print("{}", arguments.json ? folder_report_json(summary, latents) + "\n" : folder_report(summary, latents));
  return 0;
}

void print_checkpoint(std::string const& folder) {
  auto const state = dist::read_checkpoint(folder);
  std::int64_t numbers = 0;
  for (auto const& tensor : state.model) numbers += tensor.tensor.numel();
  fmt::print("checkpoint {} (valid): step {}, {} model tensors ({:.2f} M numbers), {} state tensors\n  counters {}\n",
             folder, state.step, state.model.size(), static_cast<double>(numbers) / 1e6, state.state.size(),
             state.counters_json);
  for (auto const& tensor : state.model)
    fmt::print("    {} [{}]\n", tensor.name, fmt::join(tensor.tensor.sizes(), ","));
}

}  // namespace

Command add_inspect(CLI::App& root) {
  auto arguments = std::make_shared<InspectArguments>();
  auto* app =
      root.add_subcommand("inspect", "say what a data folder, checkpoint, run folder or safetensors file holds");
  app->add_option("path", arguments->path, "folder or file")->required();
  app->add_flag("--json", arguments->json, "one JSON object, for programs (data folders)");
  app->add_flag("--rows", arguments->rows, "read all latents: their range, rows that stand out (pair folders)");
  app->add_option("--sheet", arguments->sheet, "PNG file to write: a picture for each object and light (data folders)");
  app->add_option("--sheet-objects", arguments->sheet_options.objects, "most objects on it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--sheet-lights", arguments->sheet_options.lights, "most lights on it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  return {app, [arguments](dist::Runtime& runtime) {
            require_one_process(runtime, "inspect");
            auto const& path = arguments->path;
            bool const weights = path.ends_with(".safetensors");
            bool const checkpoint = !weights && (fs::exists(path + "/checkpoints") || fs::exists(path + "/latest") ||
                                                 dist::looks_like_checkpoint(path));
            if (!weights && !checkpoint) return inspect_data(*arguments);
            if (arguments->json || arguments->rows || !arguments->sheet.empty())
              throw ConfigError(
                  fmt::format("inspect: {} is no data folder, and --json, --rows and --sheet are for those", path));
            if (checkpoint)
              print_checkpoint(dist::resolve_checkpoint(path));
            else
              for (auto const& entry : dist::read_safetensors_header(path))
                fmt::print("{} {} [{}]\n", entry.name, entry.dtype, fmt::join(entry.shape, ","));
            return 0;
          }};
}

}  // namespace duoflow::launch
