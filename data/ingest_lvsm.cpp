#include "data/ingest_lvsm.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string_view>
#include <tuple>

#include <fmt/format.h>

#include "data/error.h"
#include "data/file.h"
#include "data/lvsm_scene.h"
#include "data/lvsm_shard.h"
#include "data/shard_writer.h"

namespace duoflow::data {
namespace {

namespace fs = std::filesystem;

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

ShardFormat choose_format(std::vector<LvsmScene>& scenes, IngestOptions const& options, std::function<void(std::string const&)> const& say) {
  ShardFormat format{options.size, options.env_height, 2 * options.env_height, true};
  for (LvsmScene& scene : scenes) {
    if (!scene.problems.empty()) { continue; }
    if (format.size == 0) { format.size = scene.frames[0].size.height; }
    if (format.env_height == 0) {
      format.env_height = scene.frames[0].env_size.height;
      format.env_width = scene.frames[0].env_size.width;
    }
    for (std::size_t frame = 0; frame < scene.frames.size() && options.env_height == 0; ++frame) {
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
void take_census(std::vector<LvsmScene> const& scenes, IngestReport& report, std::function<void(std::string const&)> const& say) {
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

std::string to_line(IngestProblem const& problem) {
  return problem.frame < 0 ? fmt::format("scene {}: {}", problem.scene, problem.problem)
                           : fmt::format("scene {} frame {}: {}", problem.scene, problem.frame, problem.problem);
}

// All scenes that are lit by a map, checked and in order of (object, light).
std::vector<LvsmScene> read_scenes(IngestOptions const& options, IngestReport& report, std::function<void(std::string const&)> const& say) {
  std::vector<LvsmScene> scenes;
  for (std::string const& path : listed_scenes(options.lists, options.remaps)) {
    std::string const name = fs::path(path).stem().string();
    if (!lit_by_map(split_scene_name(name).second)) {
      report.other_lights.push_back(name);
      continue;
    }
    scenes.push_back(read_lvsm_scene(path, options.remaps));
    if (scenes.size() % 100 == 0) { say(fmt::format("{} scenes checked", scenes.size())); }
  }
  if (scenes.empty()) {
    throw DataError(fmt::format("{} holds no scene lit by an environment map ({} with other lights), pass a full_list.txt with scenes named OBJECT_env_K",
                                fmt::join(options.lists, ", "), report.other_lights.size()));
  }
  std::sort(report.other_lights.begin(), report.other_lights.end());
  std::stable_sort(scenes.begin(), scenes.end(),
                   [](LvsmScene const& a, LvsmScene const& b) { return std::tie(a.object, a.light) < std::tie(b.object, b.light); });
  check_across(scenes);
  return scenes;
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

void write_shards(std::vector<LvsmScene> const& scenes, ShardFormat const& format, IngestOptions const& options, IngestReport& report,
                  std::function<void(std::string const&)> const& say) {
  auto const per_shard = static_cast<std::size_t>(options.scenes_per_shard);
  for (std::size_t first = 0; first < scenes.size(); first += per_shard) { report.all_shards.push_back(fmt::format("scenes-{:05d}.h5", first / per_shard)); }
  if (options.dry_run) { return; }
  options.worker == 0 ? begin_folder(options.out) : static_cast<void>(fs::create_directories(options.out));
  try {
    for (std::size_t shard = static_cast<std::size_t>(options.worker); shard < report.all_shards.size(); shard += static_cast<std::size_t>(options.workers)) {
      std::string const& file = report.all_shards[shard];
      auto const members = std::span(scenes).subspan(shard * per_shard, std::min(per_shard, scenes.size() - shard * per_shard));
      write_lvsm_shard((fs::path(options.out) / file).string(), members, format);
      report.shards.push_back(file);
      say(fmt::format("{}: {} scenes", file, members.size()));
    }
    if (options.worker == 0) { write_skipped(options.out, report.problems); }
  } catch (...) {
    std::error_code ignored;
    for (std::string const& file : report.shards) { fs::remove(fs::path(options.out) / file, ignored); }
    throw;
  }
}

}  // namespace

std::pair<std::string, std::string> split_scene_name(std::string const& scene) {
  static constexpr std::array<std::string_view, 7> tags{"_white_env_", "_env_", "_white_pl_", "_rgb_pl_", "_multi_pl_", "_area_", "_combined_"};
  for (std::string_view const tag : tags) {
    if (auto const at = scene.rfind(tag); at != std::string::npos) { return {scene.substr(0, at), scene.substr(at + 1)}; }
  }
  auto const at = scene.rfind('_');
  if (at == std::string::npos) { return {scene, ""}; }
  return {scene.substr(0, at), scene.substr(at + 1)};
}

std::string base_light(std::string const& light) {
  auto const tag = light.rfind("env_");
  auto const last = light.rfind('_');
  if (tag == std::string::npos || last < tag + 4 || !all_digits(std::string_view(light).substr(last + 1)) ||
      !all_digits(std::string_view(light).substr(tag + 4, last - tag - 4))) {
    return light;
  }
  return light.substr(0, last);
}

IngestReport ingest_lvsm(IngestOptions const& options) {
  check_options(options);
  auto const say = [&](std::string const& line) {
    if (options.say) { options.say(line); }
  };
  IngestReport report;
  std::vector<LvsmScene> scenes = read_scenes(options, report, say);
  ShardFormat const format = choose_format(scenes, options, say);
  for (LvsmScene const& scene : scenes) { report.problems.insert(report.problems.end(), scene.problems.begin(), scene.problems.end()); }
  std::size_t const listed = scenes.size();
  std::erase_if(scenes, [](LvsmScene const& scene) { return !scene.problems.empty(); });

  std::string problems;
  for (IngestProblem const& problem : report.problems) {
    problems += "\n  " + to_line(problem);
  }
  if (!report.other_lights.empty()) { say(fmt::format("{} scenes have other lights than environment maps and are left out", report.other_lights.size())); }
  take_census(scenes, report, say);
  if (!report.problems.empty() && !options.dry_run) {
    std::string const found = fmt::format("{} of {} scenes have {} problems", listed - scenes.size(), listed, report.problems.size());
    if (!options.skip_bad) { throw DataError(fmt::format("{} (nothing was written), correct them or ask for bad scenes to be skipped:{}", found, problems)); }
    if (scenes.empty()) { throw DataError(fmt::format("{} (none is left to write), correct them:{}", found, problems)); }
  }
  write_shards(scenes, format, options, report, say);
  return report;
}

}  // namespace duoflow::data
