#include "data/ingest/ingest_lvsm.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <tuple>

#include <fmt/format.h>

#include "data/ingest/camera_sheet.h"
#include "data/error.h"
#include "data/file.h"
#include "data/ingest/lvsm_scene.h"
#include "data/ingest/lvsm_shard.h"
#include "data/parallel.h"
#include "data/shards/shard_receipt.h"
#include "data/shards/shard_writer.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;
using Say = std::function<void(std::string const&)>;

// A source map may have 4096 rows; the model sees 256 at most, as in the LVSM family.
constexpr std::int64_t kMostSourceRows = 256;

constexpr float kSameCamera = 1e-4F;  // world units and rotation entries; float metadata of one rig agrees to 1e-6

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; });
}

// "env_3", "white_env_0_1": lit by a map, so per-frame light maps exist.
bool lit_by_map(std::string const& light) { return light.starts_with("env_") || light.starts_with("white_env_"); }

void check_options(IngestOptions const& options) {
  auto const require = [](bool holds, std::string const& problem) {
    if (!holds) { throw DataError(problem); }
  };
  require(options.size >= 0, fmt::format("picture size {} (it must not be negative), choose 0 for the stored size", options.size));
  require(options.env_height >= 0, fmt::format("light map height {} (it must not be negative), choose 0 for the stored size", options.env_height));
  require(options.scenes_per_shard > 0, fmt::format("{} scenes per shard (at least 1 is needed), choose more", options.scenes_per_shard));
  require(options.workers > 0 && options.worker >= 0 && options.worker < options.workers,
          fmt::format("worker {} of {} (it must lie in 0 to {}), correct the numbers", options.worker, options.workers, options.workers - 1));
  require(options.renders.empty() || !options.envmaps.empty(), "a folder of renders is given but none of light maps (their env.json name maps), give both");
}

// Two scenes of one name, or of one object seen by other cameras, would make pairs that do not show the same thing.
void check_across(std::vector<LvsmScene>& scenes) {
  for (std::size_t i = 1; i < scenes.size(); ++i) {
    if (scenes[i].name == scenes[i - 1].name) { scenes[i].report(-1, "its name is listed twice, for different metadata files (names must differ)"); }
  }
  std::map<std::string, LvsmScene const*> first_of;
  for (LvsmScene& scene : scenes) {
    if (!scene.problems.empty()) { continue; }
    LvsmScene const& first = *first_of.emplace(scene.object, &scene).first->second;
    if (scene.frames.size() != first.frames.size()) {
      scene.report(-1, fmt::format("it has {} frames, scene {} of the same object has {} (one frame index is one camera of an object)",
                                   scene.frames.size(), first.name, first.frames.size()));
      continue;
    }
    for (std::size_t frame = 0; frame < scene.frames.size(); ++frame) {
      auto const &a = scene.frames[frame].c2w, &b = first.frames[frame].c2w;
      float worst = 0;
      for (std::size_t k = 0; k < 16; ++k) { worst = std::max(worst, std::abs(a[k] - b[k])); }
      if (worst > kSameCamera) {
        scene.report(static_cast<std::int64_t>(frame),
                     fmt::format("its camera differs by {:.3g} from that of scene {} (at most {:.0e}: one frame index is one camera of an object)", worst,
                                 first.name, kSameCamera));
      }
    }
  }
}

ShardFormat choose_format(std::vector<LvsmScene>& scenes, FileTable const& table, IngestOptions const& options, Say const& say) {
  ShardFormat format{options.size, options.env_height, 2 * options.env_height, true, !options.envmaps.empty()};
  for (LvsmScene& scene : scenes) {
    if (!scene.problems.empty()) { continue; }
    if (format.size == 0) { format.size = scene.frames[0].size.height; }
    if (format.env_height == 0 && scene.source) {
      format.env_height = std::min(table.at(scene.source->file).size.height, kMostSourceRows);
      format.env_width = 2 * format.env_height;
    } else if (format.env_height == 0) {
      format.env_height = scene.frames[0].env_size.height;
      format.env_width = scene.frames[0].env_size.width;
    }
    for (std::size_t frame = 0; frame < scene.frames.size() && options.env_height == 0 && !scene.source; ++frame) {
      ImageSize const& size = scene.frames[frame].env_size;
      if (size.height != format.env_height || size.width != format.env_width) {
        scene.report(static_cast<std::int64_t>(frame), fmt::format("its light map is {} x {}, the first is {} x {} (one size is needed), give --env-height",
                                                                   size.height, size.width, format.env_height, format.env_width));
      }
    }
  }
  std::int64_t with = 0, without = 0;
  std::string first_without;
  for (LvsmScene const& scene : scenes) {
    if (!scene.problems.empty()) { continue; }
    for (std::size_t frame = 0; frame < scene.frames.size(); ++frame) {
      bool const has_alpha = scene.frames[frame].size.channels == 4;
      ++(has_alpha ? with : without);
      if (!has_alpha && first_without.empty()) { first_without = fmt::format("scene {} frame {}", scene.name, frame); }
    }
  }
  format.alpha = without == 0;
  if (with > 0 && without > 0) {
    say(fmt::format("{} of {} pictures have no alpha, the first is {}: no masks are stored, masked figures will be "
                    "null (give all pictures alpha to have them)",
                    without, with + without, first_without));
  }
  return format;
}

// Counts of what is usable, and one line per object.
void take_census(std::vector<LvsmScene> const& scenes, IngestReport& report, Say const& say) {
  std::map<std::string, std::vector<LvsmScene const*>> objects;
  for (LvsmScene const& scene : scenes) { objects[scene.object].push_back(&scene); }
  report.objects = static_cast<std::int64_t>(objects.size());
  report.scenes = static_cast<std::int64_t>(scenes.size());
  for (auto const& [object, members] : objects) {
    std::int64_t frames = 0, pairs = 0;
    for (LvsmScene const* a : members) {
      frames += static_cast<std::int64_t>(a->frames.size());
      for (LvsmScene const* b : members) { pairs += base_light(a->light) != base_light(b->light) ? 1 : 0; }
    }
    report.frames += frames;
    report.pairs += pairs;
    report.lights[object] = static_cast<std::int64_t>(members.size());
    say(fmt::format("{}: {} lights, {} frames, {} pairs", object, members.size(), frames, pairs));
  }
  say(fmt::format("{} objects, {} scenes, {} frames, {} pairs", report.objects, report.scenes, report.frames, report.pairs));
}

// All scenes that are lit by a map, in order of (object, light), as their metadata describe them.
std::vector<LvsmScene> read_scenes(SourceFiles& files, IngestOptions const& options, LightSources const* lights, IngestReport& report) {
  std::vector<ListedScene> listed;
  for (ListedScene const& scene : listed_scenes(files, options)) {
    std::string const name = fs::path(scene.path).stem().string();
    lit_by_map(split_scene_name(name).second) ? listed.push_back(scene) : report.other_lights.push_back(name);
  }
  if (listed.empty()) {
    throw DataError(fmt::format("{} holds no scene lit by an environment map ({} with other lights), pass a full_list.txt with scenes named OBJECT_env_K",
                                fmt::join(options.scenes, ", "), report.other_lights.size()));
  }
  std::sort(report.other_lights.begin(), report.other_lights.end());
  std::vector<LvsmScene> scenes(listed.size());
  for_each_index(listed.size(), options.threads, [&](std::size_t i) { scenes[i] = read_lvsm_scene(files, listed[i], options.remaps, lights); });
  std::stable_sort(scenes.begin(), scenes.end(),
                   [](LvsmScene const& a, LvsmScene const& b) { return std::tie(a.object, a.light) < std::tie(b.object, b.light); });
  return scenes;
}

// The scenes' files, and what is wrong with them and with the cameras.
FileTable check_scenes(std::vector<LvsmScene>& scenes, SourceFiles const& files, IngestOptions const& options, IngestReport& report, Say const& say) {
  std::map<std::string, FileWish> wanted;
  for (LvsmScene const& scene : scenes) { add_wishes(scene, wanted); }
  say(fmt::format("checking {} files of {} scenes", wanted.size(), scenes.size()));
  FileTable table = check_files(files, wanted, options);
  for_each_index(scenes.size(), options.threads, [&](std::size_t i) { complete(scenes[i], files, table, options.remaps); });
  check_across(scenes);
  for (auto const& [path, facts] : table) {
    if (!facts.warning.empty()) { report.warnings.push_back({path, -1, facts.warning}); }
  }
  for (LvsmScene const& scene : scenes) { report.warnings.insert(report.warnings.end(), scene.warnings.begin(), scene.warnings.end()); }
  return table;
}

void write_skipped(std::string const& out, std::vector<IngestProblem> const& problems) {
  std::string const path = (fs::path(out) / "skipped.txt").string();
  if (problems.empty()) {
    fs::remove(path);  // an earlier run's
    return;
  }
  std::string text;
  for (IngestProblem const& problem : problems) { text += to_line(problem) + "\n"; }
  write_atomically(path, text);
}

// Members of one shard, and what they are made from.
struct ShardPlan {
  std::string file, path, fingerprint;
  std::span<LvsmScene const> members;
};

std::vector<ShardPlan> plan_shards(std::span<LvsmScene const> scenes, ShardFormat const& format, FileTable const& table, IngestOptions const& options) {
  auto const per_shard = static_cast<std::size_t>(options.scenes_per_shard);
  std::vector<ShardPlan> plans;
  for (std::size_t first = 0; first < scenes.size(); first += per_shard) {
    ShardPlan plan;
    plan.members = scenes.subspan(first, std::min(per_shard, scenes.size() - first));
    plan.file = fmt::format("scenes-{:05d}.h5", first / per_shard);
    plan.path = (fs::path(options.out) / plan.file).string();
    plan.fingerprint = shard_fingerprint(plan.members, format, table);
    plans.push_back(std::move(plan));
  }
  return plans;
}

bool has_receipt(ShardPlan const& plan) {
  auto const receipt = read_receipt(plan.path);
  return receipt && receipt->made_from == plan.fingerprint && fs::is_regular_file(plan.path);
}

// Before hours are spent on what will not fit.
void require_space(std::vector<ShardPlan> const& plans, ShardFormat const& format, std::string const& out) {
  std::uint64_t needed = 0;
  for (ShardPlan const& plan : plans) { needed += has_receipt(plan) ? 0 : shard_bytes(plan.members, format); }
  std::error_code ignored;
  auto const space = fs::space(out, ignored);
  // What an earlier data set of these names takes is not free yet, but will be: only shards beyond it need new room.
  std::uint64_t old = 0;
  for (ShardPlan const& plan : plans) {
    if (!has_receipt(plan) && fs::is_regular_file(plan.path, ignored)) { old += fs::file_size(plan.path, ignored); }
  }
  if (space.available + old < needed) {
    throw DataError(fmt::format("the shards need {} bytes, the disk of {} has {} free: {} are missing (nothing was written), free some, or choose another folder "
                                "or a smaller --size",
                                needed, out, space.available, needed - space.available - old));
  }
}

void write_shards(std::vector<ShardPlan> const& plans, ShardFormat const& format, ShardSources const& sources, IngestOptions const& options, IngestReport& report,
                  Say const& say) {
  if (options.worker == 0 && options.before_writing) { options.before_writing(); }
  fs::create_directories(options.out);
  if (options.worker == 0) {
    require_own_shards(options.out, ShardKind::scene, [](Attributes const& made) { return made.note.starts_with(kIngestNote); });
    require_space(plans, format, options.out);
    begin_folder(options.out);
    remove_leftovers(options.out);
    write_skipped(options.out, report.problems);
  }
  if (options.exchange) { options.exchange(""); }  // nobody writes before the folder is ready
  for (std::size_t i = static_cast<std::size_t>(options.worker); i < plans.size(); i += static_cast<std::size_t>(options.workers)) {
    ShardPlan const& plan = plans[i];
    bool const kept = is_finished(plan.path, plan.fingerprint);
    if (!kept) {
      write_lvsm_shard(plan.path, plan.members, format, sources);
      write_receipt(plan.path, plan.fingerprint, /*producer=*/"");
    }
    report.kept += kept ? 1 : 0;
    report.shards.push_back(plan.file);
    say(fmt::format("{}: {} scenes{}", plan.file, plan.members.size(), kept ? ", kept from before" : ""));
  }
}

}  // namespace

std::string base_light(std::string const& light) {
  auto const tag = light.rfind("env_");
  auto const last = light.rfind('_');
  if (tag == std::string::npos || last < tag + 4 || !all_digits(std::string_view(light).substr(last + 1)) ||
      !all_digits(std::string_view(light).substr(tag + 4, last - tag - 4))) {
    return light;
  }
  return light.substr(0, last);
}

std::string to_line(IngestProblem const& problem) {
  if (problem.scene.find('/') != std::string::npos) { return fmt::format("{}: {}", problem.scene, problem.problem); }
  return problem.frame < 0 ? fmt::format("scene {}: {}", problem.scene, problem.problem)
                           : fmt::format("scene {} frame {}: {}", problem.scene, problem.frame, problem.problem);
}

IngestReport ingest_lvsm(IngestOptions const& options) {
  check_options(options);
  Say const say = [&](std::string const& line) {
    if (options.say) { options.say(line); }
  };
  IngestReport report;
  SourceFiles files;
  std::optional<LightSources> lights;
  if (!options.envmaps.empty()) { lights.emplace(files, fs::absolute(options.envmaps).string(), options.renders.empty() ? "" : fs::absolute(options.renders).string(), options.remaps); }
  std::vector<LvsmScene> scenes = read_scenes(files, options, lights ? &*lights : nullptr, report);
  FileTable const table = check_scenes(scenes, files, options, report, say);
  ShardFormat const format = choose_format(scenes, table, options, say);
  for (LvsmScene const& scene : scenes) { report.problems.insert(report.problems.end(), scene.problems.begin(), scene.problems.end()); }
  std::size_t const listed = scenes.size();
  std::erase_if(scenes, [](LvsmScene const& scene) { return !scene.problems.empty(); });

  std::string problems;
  for (IngestProblem const& problem : report.problems) {
    problems += "\n  " + to_line(problem);
  }
  if (!report.other_lights.empty()) { say(fmt::format("{} scenes have other lights than environment maps and are left out", report.other_lights.size())); }
  take_census(scenes, report, say);
  if (options.worker == 0 && !scenes.empty()) {
    auto const wrong = check_poses(options.camera_sheet, scenes, files, table, say);
    report.warnings.insert(report.warnings.end(), wrong.begin(), wrong.end());
  }
  if (!report.problems.empty() && !options.dry_run) {
    std::string const found = fmt::format("{} of {} scenes have {} problems", listed - scenes.size(), listed, report.problems.size());
    if (!options.skip_bad) { throw DataError(fmt::format("{} (nothing was written), correct them or ask for bad scenes to be skipped:{}", found, problems)); }
    if (scenes.empty()) { throw DataError(fmt::format("{} (none is left to write), correct them:{}", found, problems)); }
  }
  auto const plans = plan_shards(scenes, format, table, options);
  for (ShardPlan const& plan : plans) { report.all_shards.push_back(plan.file); }
  if (!options.dry_run) { write_shards(plans, format, {files, table, options.threads}, options, report, say); }
  return report;
}

void end_ingest(std::string const& out) { remove_receipts(out); }

}  // namespace duoflow::data
