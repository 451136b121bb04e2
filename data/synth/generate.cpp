#include "data/synth/generate.h"

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <mutex>

#include "data/images/environment_map.h"
#include "data/error.h"
#include "data/images/image_io.h"
#include "data/shards/shard_writer.h"
#include "data/synth/embree_api.h"
#include "data/synth/encoder.h"
#include "data/synth/lights.h"
#include "data/synth/path_tracer.h"
#include "data/synth/scene.h"

namespace duoflow::data {
namespace {

void check_folder(SynthOptions const& options) {
  if (options.out.empty()) {
    throw DataError("no output folder (out is empty), name the folder to write the shards to");
  }
  if (std::filesystem::exists(std::filesystem::path(options.out) / "manifest.json")) {
    throw DataError(fmt::format("{} already holds a finished data set (manifest.json), name another folder or remove it first", options.out));
  }
  require_own_shards(options.out, ShardKind::scene, [](Attributes const& made) { return made.producer == "duoflow synth"; });
}

std::vector<ImageF> make_lights(SynthOptions const& options) {
  std::vector<ImageF> lights;
  if (options.envmaps.empty()) {
    for (std::int64_t l = 0; l < options.lights; ++l) {
      lights.push_back(procedural_light(options.seed, l, options.env_height, options.light_kinds));
    }
  } else {
    lights = file_lights(options.envmaps, options.seed, options.lights, options.env_height, options.soften_degrees);
  }
  for (std::size_t l = 0; l < lights.size(); ++l) {
    lights[l] = rounded_to_half(lights[l]);
    // A half holds 65504 at most.
    if (float const mean = mean_luminance(lights[l]); mean > 0 && mean < 0.99F * kMeanLuminance && options.say) {
      options.say(fmt::format("{}: its brightest texels are beyond 16-bit floats and were cut ({:.0f} % of its light); take smaller maps, "
                              "or soften them",
                              light_name(static_cast<std::int64_t>(l)), 100 * (1 - mean / kMeanLuminance)));
    }
  }
  return lights;
}

std::vector<DatasetSpec> scene_datasets(SynthOptions const& o) {
  std::int64_t const frames = o.lights * o.views, size = o.size;
  return {{"images", DType::u8, {frames, size, size, 3}}, {"alpha", DType::u8, {frames, size, size}},
          {"c2w", DType::f32, {frames, 4, 4}},           {"fxfycxcy", DType::f32, {frames, 4}},
          {"env", DType::f16, {o.lights, o.env_height, 2 * o.env_height, 3}},
          {"scene/object", DType::name, {o.lights}},     {"scene/light", DType::name, {o.lights}},
          {"scene/first_frame", DType::i64, {o.lights}}, {"scene/frame_count", DType::i64, {o.lights}},
          {"scene/env_row", DType::i64, {o.lights}},     {"scene/env_rotation", DType::f32, {o.lights, 3, 3}}};
}

void write_scene_table(ShardWriter& writer, SynthOptions const& options, std::string const& object, std::vector<ImageF> const& lights) {
  std::vector<std::string> names;
  for (std::int64_t l = 0; l < options.lights; ++l) {
    float const identity[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
    std::int64_t const first_frame = l * options.views;
    writer.write("scene/first_frame", l, 1, &first_frame);
    writer.write("scene/frame_count", l, 1, &options.views);
    writer.write("scene/env_row", l, 1, &l);
    writer.write("scene/env_rotation", l, 1, identity);
    writer.write("env", l, 1, to_halves(lights[static_cast<std::size_t>(l)]).data());
    names.push_back(light_name(l));
  }
  writer.write_names("scene/light", names);
  writer.write_names("scene/object", std::vector<std::string>(names.size(), object));
}

// Tells how far a data set is, at most four times a second.
class Pace {
 public:
  Pace(SynthOptions const& options, std::int64_t objects) : options_(options), rows_(objects * options.views * options.size) {}

  void begin(std::string const& object) { object_ = object; }
  void row_done() {  // from any thread
    std::int64_t const done = ++done_;
    std::unique_lock const lock(mutex_, std::try_to_lock);
    auto const now = std::chrono::steady_clock::now();
    if (!options_.progress || !lock.owns_lock() || now - last_ < std::chrono::milliseconds(250)) {
      return;
    }
    last_ = now;
    options_.progress({static_cast<double>(done) / static_cast<double>(rows_), seconds(), object_});
  }
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  SynthOptions const& options_;
  std::int64_t rows_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_ = start_;
  std::atomic<std::int64_t> done_{0};
  std::mutex mutex_;
  std::string object_;
};

// One view under every light.
struct Frames {
  std::vector<Image8> rgba;  // per light, straight alpha
};

Frames render(PathTracer const& tracer, Camera const& camera, LightTable const& lights, TraceOptions const& trace, Pace& pace) {
  static Encoder const encode;
  Frames frames;
  frames.rgba.assign(static_cast<std::size_t>(lights.lights()),
                     Image8{camera.size, camera.size, 4, std::vector<std::uint8_t>(static_cast<std::size_t>(camera.size * camera.size * 4))});
  std::int64_t const stride = lights.stride();
  tracer.trace(camera, lights, trace, [&](std::int64_t row, std::int64_t column, float coverage, float const* radiance) {
    for (std::int64_t l = 0; l < lights.lights(); ++l) {
      std::uint8_t* const pixel = &frames.rgba[static_cast<std::size_t>(l)].pixels[static_cast<std::size_t>((row * camera.size + column) * 4)];
      for (std::int64_t c = 0; c < 3; ++c) {
        pixel[c] = encode(radiance[c * stride + l]);
      }
      pixel[3] = static_cast<std::uint8_t>(std::lround(255 * coverage));
    }
    if (column == camera.size - 1) {
      pace.row_done();
    }
  });
  return frames;
}

void write_frames(ShardWriter& writer, SynthOptions const& options, std::int64_t view, Camera const& camera, Frames const& frames) {
  for (std::int64_t l = 0; l < options.lights; ++l) {
    Image8 const& rgba = frames.rgba[static_cast<std::size_t>(l)];
    std::vector<std::uint8_t> alpha;
    for (std::size_t i = 3; i < rgba.pixels.size(); i += 4) {
      alpha.push_back(rgba.pixels[i]);
    }
    std::int64_t const frame = l * options.views + view;
    writer.write("images", frame, 1, over_white(rgba).pixels.data());
    writer.write("alpha", frame, 1, alpha.data());
    writer.write("c2w", frame, 1, camera.c2w);
    writer.write("fxfycxcy", frame, 1, camera.fxfycxcy);
  }
}

// Whether a light may be small and bright, so that reflections alone would find it unevenly.
bool has_sharp_lights(SynthOptions const& o) {
  auto const is_sharp = [](LightKind kind) { return kind == LightKind::sun_sky || kind == LightKind::studio; };
  return o.envmaps.empty() ? std::any_of(o.light_kinds.begin(), o.light_kinds.end(), is_sharp) : o.soften_degrees <= 0;
}
std::int64_t light_directions(SynthOptions const& o) {
  return o.light_directions != SynthOptions::kAutomatic ? o.light_directions : has_sharp_lights(o) ? 16 : 0;
}

// Nothing that may differ between machines: equal options, equal bytes. What is as it is by default is left out.
std::string how_made(SynthOptions const& o) {
  SynthOptions const usual;
  std::string lights = "procedural";
  if (!o.envmaps.empty()) {
    lights = o.soften_degrees == usual.soften_degrees ? "from files" : fmt::format("from files, softened by {} degrees", o.soften_degrees);
  } else if (o.light_kinds != kSoftLights) {
    lights.clear();
    for (LightKind const kind : o.light_kinds) {
      lights += (lights.empty() ? "" : " and ") + to_string(kind);
    }
  }
  std::string note = fmt::format("{} scenes: seed {}, {} samples per pixel, lights {}", o.object.meshes.empty() ? "procedural" : "mesh", o.seed,
                                 o.samples_per_pixel, lights);
  if (o.bounces != usual.bounces) {
    note += fmt::format(", {} bounces", o.bounces);
  }
  if (std::int64_t const directions = light_directions(o); directions > 0) {
    note += fmt::format(", {} light directions", directions);
  }
  for (Finish const finish : o.object.materials) {
    note += ", " + to_string(finish);
  }
  if (o.object.per_scene > 1) {
    note += fmt::format(", {} objects a scene", o.object.per_scene);
  }
  return note + (o.object.ground == Ground::disc ? ", on ground" : "");
}

// Cameras stay above a ground.
float lowest_elevation(SynthOptions const& o) { return o.object.ground == Ground::disc ? 8 : kLowestElevation; }

}  // namespace

void check_options(SynthOptions const& options) {
  auto const in_range = [](char const* name, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value < low || value > high) {
      throw DataError(fmt::format("{} is {} (must be {} to {}), give a number in that range", name, value, low, high));
    }
  };
  in_range("objects", options.objects, options.object.meshes.empty() ? 1 : 0, 100000);
  in_range("lights", options.lights, 1, 100000);
  in_range("views", options.views, 1, 100000);
  in_range("size", options.size, 1, 4096);
  in_range("env_height", options.env_height, 2, 1024);
  in_range("samples_per_pixel", options.samples_per_pixel, 1, kMostSamples);
  in_range("bounces", options.bounces, 1, kMostBounces);
  if (options.light_directions != SynthOptions::kAutomatic) {
    in_range("light_directions", options.light_directions, 0, kMostLightDirections);
  }
  in_range("objects per scene", options.object.per_scene, 1, kMostPerScene);
  if (!(options.soften_degrees >= 0 && options.soften_degrees <= 90)) {
    throw DataError(fmt::format("soften_degrees is {} (must be 0 to 90), give a number in that range", options.soften_degrees));
  }
  if (options.light_kinds.empty()) {
    throw DataError("no kind of light (light_kinds is empty), give some of: sky, area, sun-sky, studio");
  }
}

SynthReport generate_scenes(SynthOptions const& options) {
  check_options(options);
  check_folder(options);
  embree();  // when it is missing, nothing is left behind
  ObjectMaker const maker(options.object, options.seed);
  std::int64_t const objects = options.objects > 0 ? options.objects : (maker.files() + options.object.per_scene - 1) / options.object.per_scene;
  std::filesystem::create_directories(options.out);
  std::vector<ImageF> const lights = make_lights(options);
  LightTable const table(lights);
  Pace pace(options, objects);
  SynthReport report;
  for (std::int64_t o = 0; o < objects; ++o) {
    Object const object = maker.make(o);
    pace.begin(object.name);
    PathTracer const tracer(object);
    std::string const file = fmt::format("scenes-{:05}.h5", o);
    ShardWriter writer((std::filesystem::path(options.out) / file).string(), ShardKind::scene, scene_datasets(options),
                       {.producer = "duoflow synth", .latent_mean = {}, .latent_std = {}, .note = how_made(options)});
    write_scene_table(writer, options, object.name, lights);
    std::uint64_t const object_key = make_key(options.seed, "trace", static_cast<std::uint64_t>(o));
    for (std::int64_t v = 0; v < options.views; ++v) {
      Camera const camera = make_camera(options.seed, o, v, options.size, object.mesh, lowest_elevation(options));
      TraceOptions const trace{options.samples_per_pixel, make_key(object_key, "view", static_cast<std::uint64_t>(v)), options.threads,
                               static_cast<int>(options.bounces), static_cast<int>(light_directions(options))};
      write_frames(writer, options, v, camera, render(tracer, camera, table, trace, pace));
    }
    writer.close();
    report.shards.push_back(file);
    report.scenes += options.lights;
    report.frames += options.lights * options.views;
    if (options.say) {
      options.say(fmt::format("{}/{} {}: {} lights x {} views, {} triangles ({:.1f} s)", o + 1, objects, object.name, options.lights,
                              options.views, object.mesh.triangles.size(), pace.seconds()));
    }
  }
  write_manifest(options.out, ShardKind::scene, report.shards);
  return report;
}

}  // namespace duoflow::data
