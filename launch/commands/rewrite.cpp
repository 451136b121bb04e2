// The commands that make data folders of data folders: split, merge, repack, index.

#include <charconv>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "data/tools/index_folder.h"
#include "data/tools/new_folder.h"
#include "data/tools/rewrite.h"
#include "data/tools/split.h"
#include "launch/commands/commands.h"
#include "launch/commands/options.h"
#include "launch/config.h"
#include "launch/logging.h"

namespace duoflow::launch {
namespace {

void add_rewrite_options(CLI::App& app, data::RewriteOptions& options) {
  app.add_option("--out", options.out, "folder to write; must not be there, or be empty")->required();
  add_latent_type_option(app, options.latent_dtype);
  add_shard_size_option(app, options.shard_bytes);
  app.add_option("--per-shard,--scenes-per-shard,--rows-per-shard", options.per_shard,
                 "scenes or rows in a file, instead of --shard-mib; rows of one object stay together")
      ->check(CLI::PositiveNumber)
      ->excludes("--shard-mib");
  options.say = [](std::string const& line) { log_info(line); };
}

void report_rewrite(data::RewriteReport const& report, std::string const& folder) {
  bool const scenes = report.kind == data::ShardKind::scene;
  log_info(fmt::format("{}: {} {}{} in {} shards, {}", folder, report.units, scenes ? "scenes" : "rows",
                       scenes ? "" : fmt::format(", {} pairs", report.pairs), report.shards,
                       data::size_text(report.bytes)));
  if (report.pairs_left_out > 0)
    log_info(fmt::format("{}: {} pairs left out, whose other row is in another part or in none", folder,
                         report.pairs_left_out));
}

std::vector<data::Part> parse_parts(std::vector<std::string> const& texts) {
  std::vector<data::Part> parts;
  for (auto const& text : texts) {
    auto const equals = text.find('=');
    data::Part part{text.substr(0, equals), 0};
    auto const* const end = text.data() + text.size();
    bool const number = equals != std::string::npos && [&] {
      auto const [rest, error] = std::from_chars(text.data() + equals + 1, end, part.fraction);
      return error == std::errc() && rest == end;
    }();
    if (!number) throw ConfigError(fmt::format("part \"{}\" is not NAME=FRACTION (for example train=0.9)", text));
    parts.push_back(part);
  }
  return parts;
}

}  // namespace

Command add_split(CLI::App& root) {
  struct Arguments {
    std::string folder;
    std::vector<std::string> parts;
    data::SplitOptions split;
    data::RewriteOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  auto* app = root.add_subcommand("split", "divide a data folder into parts that share no object, or no light");
  app->add_option("folder", arguments->folder, "data folder")->required();
  app->add_option("parts", arguments->parts,
                  "NAME=FRACTION of each part, for example train=0.9 test=0.1: folders OUT/NAME")
      ->required();
  app->add_option(
         "--by", arguments->split.by,
         "object: an object is in one part. light: a light is (turned copies of a map count as one). both: what "
         "is in one part by object and by light, the rest left out")
      ->transform(CLI::Transformer(std::map<std::string, data::SplitBy>{
          {"object", data::SplitBy::object}, {"light", data::SplitBy::light}, {"both", data::SplitBy::both}}))
      ->default_str("object");
  app->add_option("--seed", arguments->split.seed,
                  "a name's part follows from it and the name alone: data added later moves nothing")
      ->capture_default_str();
  add_rewrite_options(*app, arguments->options);
  return {app, [arguments](dist::Runtime& runtime) {
            require_one_process(runtime, "split");
            arguments->split.parts = parse_parts(arguments->parts);
            auto const reports = data::split_folder(arguments->folder, arguments->split, arguments->options);
            for (std::size_t i = 0; i < reports.size(); ++i)
              report_rewrite(reports[i], arguments->options.out + "/" + arguments->split.parts[i].name);
            return 0;
          }};
}

Command add_merge(CLI::App& root) {
  struct Arguments {
    std::vector<std::string> folders;
    data::RewriteOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  auto* app = root.add_subcommand("merge", "join data folders of one kind, size and producer into one");
  app->add_option("folders", arguments->folders, "data folders, in any order: the result is the same")->required();
  add_rewrite_options(*app, arguments->options);
  return {app, [arguments](dist::Runtime& runtime) {
            require_one_process(runtime, "merge");
            report_rewrite(data::merge_folders(arguments->folders, arguments->options), arguments->options.out);
            return 0;
          }};
}

Command add_repack(CLI::App& root) {
  struct Arguments {
    std::string folder;
    data::RewriteOptions options;
  };
  auto arguments = std::make_shared<Arguments>();
  auto* app =
      root.add_subcommand("repack", "write a data folder again: shard sizes, type of latents, layout for direct reads");
  app->add_option("folder", arguments->folder,
                  "data folder, with manifest or without; chunked, compressed or big-endian too")
      ->required();
  add_rewrite_options(*app, arguments->options);
  return {app, [arguments](dist::Runtime& runtime) {
            require_one_process(runtime, "repack");
            report_rewrite(data::repack_folder(arguments->folder, arguments->options), arguments->options.out);
            return 0;
          }};
}

Command add_index(CLI::App& root) {
  auto folder = std::make_shared<std::string>();
  auto* app =
      root.add_subcommand("index", "write the manifest of shards that another program made (launch/duoflow_h5.py)");
  app->add_option("folder", *folder, "folder of .h5 shards without manifest.json")->required();
  return {
      app, [folder](dist::Runtime& runtime) {
        require_one_process(runtime, "index");
        auto const indexed = data::index_folder(*folder);
        log_info(fmt::format("{}: {} {} shards indexed", *folder, indexed.files.size(), data::to_string(indexed.kind)));
        return 0;
      }};
}

}  // namespace duoflow::launch
