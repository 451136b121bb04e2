// synth's tracer against pictures of an independent renderer (Mitsuba 3): the same mesh under the same map from the same cameras.
//   build/synth_reference SHARED_DATA OBJECT SPLIT ROUGHNESS [OUT.png]       for example ../shared/data bunny train 0.5
// Base colours come from the set's albedo pictures, by projection into the frame; roughness is one number for the whole object.

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "data/images/environment_map.h"
#include "data/images/image_io.h"
#include "data/synth/encoder.h"
#include "data/synth/mesh_file.h"
#include "data/synth/path_tracer.h"

using namespace duoflow::data;

namespace {

nlohmann::json read_json(std::string const& path) { return nlohmann::json::parse(std::ifstream(path)); }

Camera camera_of(nlohmann::json const& entry, std::int64_t size) {
  Camera camera{};
  for (std::size_t r = 0; r < 4; ++r) {
    for (std::size_t c = 0; c < 4; ++c) {
      camera.c2w[r * 4 + c] = entry["c2w"][r][c].get<float>() * (c == 1 || c == 2 ? -1.0F : 1.0F);
    }
  }
  auto const s = static_cast<float>(size);
  float const focal = 0.5F * s / std::tan(0.5F * entry["fov"].get<float>() * 3.14159265F / 180);
  float const values[4] = {focal, focal, 0.5F * s, 0.5F * s};
  std::copy(values, values + 4, camera.fxfycxcy);
  camera.size = size;
  return camera;
}

// The albedo picture's colour where a point projects to, or that of the nearest pixel the object covers.
SurfaceAt projected(Image8 const& albedo, Camera const& camera, float roughness) {
  return [&albedo, camera, roughness](SurfacePoint const& at) {
    float const* const m = camera.c2w;
    Vec3 const q = at.point - Vec3{m[3], m[7], m[11]};
    float const depth = m[2] * q.x + m[6] * q.y + m[10] * q.z;
    auto const column = static_cast<std::int64_t>(camera.fxfycxcy[0] * (m[0] * q.x + m[4] * q.y + m[8] * q.z) / depth + camera.fxfycxcy[2]);
    auto const row = static_cast<std::int64_t>(camera.fxfycxcy[1] * (m[1] * q.x + m[5] * q.y + m[9] * q.z) / depth + camera.fxfycxcy[3]);
    for (std::int64_t reach = 0; reach < 4; ++reach) {
      for (std::int64_t r = row - reach; r <= row + reach; ++r) {
        for (std::int64_t c = column - reach; c <= column + reach; ++c) {
          if (r < 0 || c < 0 || r >= albedo.height || c >= albedo.width) {
            continue;
          }
          std::uint8_t const* const p = &albedo.pixels[static_cast<std::size_t>((r * albedo.width + c) * 4)];
          if (p[3] < 128) {
            continue;
          }
          // Mitsuba's principled diffuse lobe is not dimmed by the coat above it, this project's is: by (1 - mean Fresnel) twice.
          constexpr float kThroughCoat = (1 - 0.0857F) * (1 - 0.0857F);
          auto const linear = [](std::uint8_t code) {
            return std::min(std::pow(static_cast<float>(code) / 255, 2.2F) / kThroughCoat, 0.98F);
          };
          return plastic({linear(p[0]), linear(p[1]), linear(p[2])}, roughness);
        }
      }
    }
    return plastic({0.5F, 0.5F, 0.5F}, roughness);
  };
}

struct Error {
  double squares = 0, count = 0;
  double psnr() const { return -10 * std::log10(squares / count); }
};

// Over white, in encoded values: of the whole picture, and of its pixels with alpha above one half.
void compare(Image8 const& mine, Image8 const& theirs, Error& whole, Error& masked) {
  Image8 const a = over_white(mine), b = over_white(theirs);
  for (std::size_t i = 0; i < a.pixels.size(); ++i) {
    double const d = (static_cast<double>(a.pixels[i]) - static_cast<double>(b.pixels[i])) / 255;
    whole.squares += d * d;
    ++whole.count;
    if (theirs.pixels[i / 3 * 4 + 3] > 127) {
      masked.squares += d * d;
      ++masked.count;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: synth_reference SHARED_DATA OBJECT SPLIT ROUGHNESS [OUT.png]\n");
    return 2;
  }
  std::string const shared = argv[1], object_name = argv[2], split = argv[3], set = shared + "/lvsm_scenes";
  float const roughness = std::strtof(argv[4], nullptr);
  constexpr std::int64_t kSize = 128;
  auto const cameras = read_json(fmt::format("{}/source/{}/{}/cameras.json", set, object_name, split));
  Object object = load_mesh(fmt::format("{}/meshes/{}.glb", shared, object_name), MeshUp::by_format, KeyedRandom(0)).object;
  Encoder const encode;
  struct Variant {
    char const* name;
    bool mirrored;
    float turn;  // times the yaw
    float more;  // degrees
  };
  Variant const variants[] = {{"as documented", false, 1, 0},
                              {"yaw of the other sign", false, -1, 0},
                              {"map mirrored", true, 1, 0},
                              {"map turned by 10 degrees", false, 1, 10}};
  Error whole[4], masked[4];
  Image8 sheet{0, 2 * kSize * 2, 3, {}};
  for (int k = 0; k < 6; ++k) {
    auto const env = read_json(fmt::format("{}/source/{}/{}/env_{}/env.json", set, object_name, split, k));
    ImageF map = read_exr(fmt::format("{}/envmaps/{}", shared, env["env_map"].get<std::string>()));
    for (float& value : map.pixels) {
      value *= env["strength"].get<float>();
    }
    std::vector<ImageF> maps;
    for (Variant const& variant : variants) {
      float const a = variant.turn * env["rotation_euler"][2].get<float>() + variant.more * 3.14159265F / 180, c = std::cos(a),
                  s = std::sin(a);
      maps.push_back(rotate_map(
          map, variant.mirrored ? std::array<float, 9>{c, s, 0, s, -c, 0, 0, 0, 1} : std::array<float, 9>{c, -s, 0, s, c, 0, 0, 0, 1}));
    }
    LightTable const table(maps);
    for (std::size_t frame = 0; frame < 12; frame += 6) {
      Camera const camera = camera_of(cameras[frame], kSize);
      Image8 const albedo = read_image(fmt::format("{}/{}/albedos/{}/{:05}.png", set, split, object_name, frame));
      object.surface_at = projected(albedo, camera, roughness);
      Image8 const theirs = read_image(fmt::format("{}/{}/images/{}_env_{}/{:05}.png", set, split, object_name, k, frame));
      std::vector<Image8> mine(4, Image8{kSize, kSize, 4, std::vector<std::uint8_t>(kSize * kSize * 4)});
      PathTracer(object).trace(camera, table, {.samples_per_pixel = 32, .key = frame, .light_directions = 16},
                               [&](std::int64_t row, std::int64_t column, float coverage, float const* radiance) {
                                 for (std::size_t v = 0; v < 4; ++v) {
                                   std::uint8_t* const pixel = &mine[v].pixels[static_cast<std::size_t>((row * kSize + column) * 4)];
                                   for (std::int64_t c = 0; c < 3; ++c) {
                                     pixel[c] = encode(radiance[c * table.stride() + static_cast<std::int64_t>(v)]);
                                   }
                                   pixel[3] = static_cast<std::uint8_t>(std::lround(255 * coverage));
                                 }
                               });
      for (std::size_t v = 0; v < 4; ++v) {
        compare(mine[v], theirs, whole[v], masked[v]);
      }
      Image8 const a = over_white(mine[0]), b = over_white(theirs);
      if (frame == 0) {
        sheet.height += kSize;
        sheet.pixels.resize(static_cast<std::size_t>(sheet.height * sheet.width * 3));
      }
      for (std::int64_t r = 0; r < kSize; ++r) {
        auto const to = static_cast<std::ptrdiff_t>(
                       ((sheet.height - kSize + r) * sheet.width + static_cast<std::int64_t>(frame) / 6 * 2 * kSize) * 3),
                   from = static_cast<std::ptrdiff_t>(r * kSize * 3);
        std::copy_n(a.pixels.begin() + from, kSize * 3, sheet.pixels.begin() + to);
        std::copy_n(b.pixels.begin() + from, kSize * 3, sheet.pixels.begin() + to + kSize * 3);
      }
    }
  }
  for (std::size_t v = 0; v < 4; ++v) {
    std::printf("| %s | %s | %.2f dB | %.2f dB |\n", object_name.c_str(), variants[v].name, whole[v].psnr(), masked[v].psnr());
  }
  if (argc > 5) {
    write_png(argv[5], sheet);
  }
}
