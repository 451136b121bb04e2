#include "data/synth/generate.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "data/error.h"
#include "data/image_io.h"
#include "data/shard_writer.h"
#include "data/synth/embree_api.h"
#include "data/synth/lights.h"
#include "data/synth/path_tracer.h"
#include "data/synth/scene.h"

namespace duoflow::data {
namespace {

// 8-bit codes of linear values: round(255 clip(x)^(1/2.2)), by a table of where each code begins.
class Encoder {
 public:
  Encoder() {
    for (std::size_t code = 1; code < 256; ++code) {
      begins_[code] = static_cast<float>(std::pow((static_cast<double>(code) - 0.5) / 255, 2.2));
    }
    begins_[256] = 2;
    std::size_t code = 0;
    for (std::size_t i = 0; i < kCoarse; ++i) {
      while (begins_[code + 1] <= static_cast<float>(i) / kCoarse) {
        ++code;
      }
      coarse_[i] = static_cast<std::uint8_t>(code);
    }
  }
  std::uint8_t operator()(float x) const {
    if (!(x > 0)) {
      return 0;
    }
    if (x >= 1) {
      return 255;
    }
    std::size_t code = coarse_[static_cast<std::size_t>(x * kCoarse)];
    while (x >= begins_[code + 1]) {
      ++code;
    }
    return static_cast<std::uint8_t>(code);
  }

 private:
  static constexpr int kCoarse = 4096;
  std::array<float, 257> begins_{};
  std::array<std::uint8_t, kCoarse> coarse_{};
};

void check(SynthOptions const& options) {
  auto const in_range = [](char const* name, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value < low || value > high) {
      throw DataError(fmt::format("{} is {} (must be {} to {}), give a number in that range", name, value, low, high));
    }
  };
  in_range("objects", options.objects, 1, 100000);
  in_range("lights", options.lights, 1, 100000);
  in_range("views", options.views, 1, 100000);
  in_range("size", options.size, 1, 4096);
  in_range("env_height", options.env_height, 2, 1024);
  in_range("samples_per_pixel", options.samples_per_pixel, 1, kMostSamples);
  if (options.out.empty()) {
    throw DataError("no output folder (out is empty), name the folder to write the shards to");
  }
  if (std::filesystem::exists(std::filesystem::path(options.out) / "manifest.json")) {
    throw DataError(fmt::format("{} already holds a finished data set (manifest.json), name another folder or remove it first", options.out));
  }
}

std::vector<ImageF> make_lights(SynthOptions const& options) {
  std::vector<ImageF> lights;
  if (options.envmaps.empty()) {
    for (std::int64_t l = 0; l < options.lights; ++l) {
      lights.push_back(procedural_light(options.seed, l, options.env_height));
    }
  } else {
    lights = file_lights(options.envmaps, options.seed, options.lights, options.env_height);
  }
  for (ImageF& light : lights) {
    light = rounded_to_half(light);
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

// One view under every light.
struct Frames {
  std::vector<Image8> rgba;  // per light, straight alpha
};

Frames render(PathTracer const& tracer, Camera const& camera, LightTable const& lights, TraceOptions const& trace) {
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

std::string how_made(SynthOptions const& o) {  // nothing that may differ between machines: equal options, equal bytes
  return fmt::format("procedural scenes: seed {}, {} samples per pixel, lights {}", o.seed, o.samples_per_pixel,
                     o.envmaps.empty() ? "procedural" : "from files");
}

}  // namespace

SynthReport generate_scenes(SynthOptions const& options) {
  check(options);
  embree();  // when it is missing, nothing is left behind
  std::filesystem::create_directories(options.out);
  auto const start = std::chrono::steady_clock::now();
  std::vector<ImageF> const lights = make_lights(options);
  LightTable const table(lights);
  SynthReport report;
  for (std::int64_t o = 0; o < options.objects; ++o) {
    Object const object = make_object(options.seed, o);
    PathTracer const tracer(object);
    std::string const file = fmt::format("scenes-{:05}.h5", o);
    ShardWriter writer((std::filesystem::path(options.out) / file).string(), ShardKind::scene, scene_datasets(options),
                       {.producer = "duoflow synth", .latent_mean = {}, .latent_std = {}, .note = how_made(options)});
    write_scene_table(writer, options, object.name, lights);
    std::uint64_t const object_key = make_key(options.seed, "trace", static_cast<std::uint64_t>(o));
    for (std::int64_t v = 0; v < options.views; ++v) {
      Camera const camera = make_camera(options.seed, o, v, options.size, object.mesh);
      TraceOptions const trace{options.samples_per_pixel, make_key(object_key, "view", static_cast<std::uint64_t>(v)), options.threads};
      write_frames(writer, options, v, camera, render(tracer, camera, table, trace));
    }
    writer.close();
    report.shards.push_back(file);
    report.scenes += options.lights;
    report.frames += options.lights * options.views;
    if (options.say) {
      std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - start;
      options.say(fmt::format("{}/{} {}: {} lights x {} views, {} triangles ({:.1f} s)", o + 1, options.objects, object.name,
                              options.lights, options.views, object.mesh.triangles.size(), seconds.count()));
    }
  }
  write_manifest(options.out, ShardKind::scene, report.shards);
  return report;
}

}  // namespace duoflow::data
