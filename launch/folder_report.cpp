#include "launch/folder_report.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "data/tools/new_folder.h"

namespace duoflow::launch {
namespace {

constexpr std::size_t most_objects_listed = 20;
constexpr std::size_t most_outliers_listed = 8;

using data::Extent;

double average(std::vector<float> const& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::string contents_text(data::FolderSummary const& s) {
  auto const pictures = fmt::format("{} x {}{}", s.height, s.width, s.has_alpha ? " with alpha" : "");
  auto const maps = s.env_height == 0 ? std::string("no light maps")
                                      : fmt::format("light maps {} x {}{}", s.env_height, s.env_width,
                                                    s.env_per_frame ? " per frame" : "");
  if (s.kind == data::ShardKind::scene)
    return fmt::format("scene shards: {} scenes of {} objects, pictures {}, {}\n  {} frames", s.units, s.lights.size(),
                       pictures, maps, s.frames);
  auto const latents = s.datasets.find("latents");
  return fmt::format(
      "pair shards: {} ordered pairs of {} rows, latents {} x {} {}, {} targets of {}, {}\n  {} objects, {} view sets",
      s.pairs, s.units, s.tokens, s.dim, latents == s.datasets.end() ? "" : data::to_string(latents->second.dtype),
      s.targets, pictures, maps, s.lights.size(), s.view_sets);
}

std::string lights_text(data::FolderSummary const& s) {
  std::size_t least = 0, most = 0;
  for (auto const& [object, lights] : s.lights) {
    least = most == 0 ? lights.size() : std::min(least, lights.size());
    most = std::max(most, lights.size());
  }
  auto text = fmt::format("  lights: {} different, {} for each object\n", s.distinct_lights,
                          least == most ? std::to_string(most) : fmt::format("{} to {}", least, most));
  std::size_t listed = 0;
  for (auto const& [object, lights] : s.lights) {
    if (++listed > most_objects_listed) break;
    text += fmt::format("    {}: {} lights ({} .. {})\n", object, lights.size(), lights.front(), lights.back());
  }
  if (s.lights.size() > most_objects_listed)
    text += fmt::format("    and {} more objects (--json lists all)\n", s.lights.size() - most_objects_listed);
  return text;
}

std::string cameras_text(data::FolderSummary const& s) {
  if (!s.camera_distance || !s.focal || !s.field_of_view) return "";
  return fmt::format(
      "  cameras: {:.3f} to {:.3f} from the origin{}, fx {:.1f} to {:.1f} pixels, field of view {:.1f} to {:.1f} "
      "degrees\n",
      s.camera_distance->least, s.camera_distance->most,
      s.kind == data::ShardKind::scene ? "" : " of the normalised frame", s.focal->least, s.focal->most,
      s.field_of_view->least, s.field_of_view->most);
}

std::string origin_text(data::FolderSummary const& s) {
  std::string text;
  for (auto const& [producer, shards] : s.producers)
    text += fmt::format("  producer {} ({} of {} shards)\n", producer, shards, s.shards);
  for (auto const& [note, shards] : s.notes)
    text += fmt::format("  note \"{}\" ({} of {} shards)\n", note, shards, s.shards);
  return text;
}

std::string datasets_text(data::FolderSummary const& s) {
  std::string text = "  datasets\n";
  for (auto const& [name, dataset] : s.datasets) {
    std::vector<std::int64_t> shape = {dataset.rows};
    shape.insert(shape.end(), dataset.row_shape.begin(), dataset.row_shape.end());
    text += fmt::format("    /{} {} [{}] {}{}\n", name, data::to_string(dataset.dtype), fmt::join(shape, ","),
                        data::size_text(dataset.bytes),
                        dataset.slow_shards == 0 ? ""
                                                 : fmt::format(" ({} shards read through HDF5: `duoflow repack` them)",
                                                               dataset.slow_shards));
  }
  return text;
}

std::string latents_text(data::LatentSummary const& l) {
  auto text = fmt::format(
      "  rows read: mean {:.4f}, standard deviation {:.4f} (averages over channels), numbers {:.4g} to {:.4g}\n"
      "  root mean square of a row: {:.4g} to {:.4g}, median {:.4g}, {} outliers\n",
      average(l.mean), average(l.deviation), l.values.least, l.values.most, l.rms.least, l.rms.most, l.median_rms,
      l.outliers.size());
  for (std::size_t i = 0; i < std::min(l.outliers.size(), most_outliers_listed); ++i) {
    auto const& row = l.outliers[i];
    text += fmt::format("    {} row {} ({} under {}): {:.4g}\n", row.file, row.row, row.object, row.light, row.rms);
  }
  return text;
}

nlohmann::ordered_json json_of(std::optional<Extent> const& extent) {
  if (!extent) return nullptr;
  return {extent->least, extent->most};
}

nlohmann::ordered_json json_of(data::LatentSummary const& l) {
  nlohmann::ordered_json json = {{"mean", l.mean},
                                 {"std", l.deviation},
                                 {"values", {l.values.least, l.values.most}},
                                 {"rms", {l.rms.least, l.rms.most}},
                                 {"median_rms", l.median_rms},
                                 {"outliers", nlohmann::ordered_json::array()}};
  for (auto const& row : l.outliers)
    json["outliers"].push_back(
        {{"file", row.file}, {"row", row.row}, {"object", row.object}, {"light", row.light}, {"rms", row.rms}});
  return json;
}

}  // namespace

std::string folder_report(data::FolderSummary const& s, std::optional<data::LatentSummary> const& latents) {
  auto text = fmt::format("{} in {} shards, {}\n", contents_text(s), s.shards, data::size_text(s.bytes));
  text += cameras_text(s);
  if (!s.latent_mean.empty())
    text += fmt::format("  latents: mean {:.4f}, standard deviation {:.4f} (averages over channels)\n",
                        average(s.latent_mean), average(s.latent_std));
  if (latents) text += latents_text(*latents);
  return text + origin_text(s) + lights_text(s) + datasets_text(s);
}

std::string folder_report_json(data::FolderSummary const& s, std::optional<data::LatentSummary> const& latents) {
  auto const nullable = [](std::vector<float> const& values) {
    return values.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(values);
  };
  bool const scenes = s.kind == data::ShardKind::scene;
  nlohmann::ordered_json json = {{"folder", s.directory},
                                 {"kind", data::to_string(s.kind)},
                                 {"shards", s.shards},
                                 {"bytes", s.bytes},
                                 {scenes ? "scenes" : "rows", s.units}};
  if (scenes) {
    json["frames"] = s.frames;
    json["light_map_per_frame"] = s.env_per_frame;
  } else {
    json.update(
        {{"pairs", s.pairs}, {"view_sets", s.view_sets}, {"tokens", s.tokens}, {"dim", s.dim}, {"targets", s.targets}});
    json["latent_mean"] = nullable(s.latent_mean);
    json["latent_std"] = nullable(s.latent_std);
  }
  json.update({{"height", s.height},
               {"width", s.width},
               {"alpha", s.has_alpha},
               {"light_map_height", s.env_height},
               {"light_map_width", s.env_width}});
  json["camera_distance"] = json_of(s.camera_distance);
  json["focal_px"] = json_of(s.focal);
  json["field_of_view_degrees"] = json_of(s.field_of_view);
  json["producers"] = s.producers;
  json["notes"] = s.notes;
  json["lights"] = s.lights;
  for (auto const& [name, dataset] : s.datasets)
    json["datasets"][name] = {{"dtype", data::to_string(dataset.dtype)},
                              {"rows", dataset.rows},
                              {"row_shape", dataset.row_shape},
                              {"bytes", dataset.bytes},
                              {"shards_read_through_hdf5", dataset.slow_shards}};
  if (latents) json["latents"] = json_of(*latents);
  return json.dump();
}

}  // namespace duoflow::launch
