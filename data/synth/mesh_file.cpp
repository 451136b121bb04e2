#include "data/synth/mesh_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <memory>
#include <numeric>

#include "data/error.h"
#include "data/synth/finish.h"
#include "data/synth/mesh_data.h"

namespace duoflow::data {
namespace {

std::string format_of(std::string const& path) {
  std::string extension = std::filesystem::path(path).extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension;
}
bool is_mesh(std::string const& path) {
  std::string const format = format_of(path);
  return format == ".obj" || format == ".ply" || format == ".gltf" || format == ".glb";
}

Vec3 face_normal(MeshData const& mesh, std::array<std::uint32_t, 3> const& t) {  // length: twice the area
  return cross(mesh.points[t[1]] - mesh.points[t[0]], mesh.points[t[2]] - mesh.points[t[0]]);
}

void check(MeshData const& mesh, std::string const& path) {
  for (Vec3 const& p : mesh.points) {
    if (!std::isfinite(p.x) || !std::isfinite(p.y) || !std::isfinite(p.z)) {
      throw DataError(fmt::format("{} has a point at ({}, {}, {}) (its index is {}), which is no place; export it again", path, p.x, p.y,
                                  p.z, &p - mesh.points.data()));
    }
  }
  if (mesh.triangles.size() > kMostTriangles) {
    throw DataError(fmt::format("{} has {} triangles ({} is the most), simplify it first", path, mesh.triangles.size(), kMostTriangles));
  }
}

// Centred with the longest side kLongestSide, and +Z up; points that no triangle uses do not count. First, so that areas and lengths are
// of a size that floats hold.
void place(MeshData& mesh, bool y_up, std::string const& path) {
  auto const turn = [&](std::vector<Vec3>& all) {
    for (Vec3& v : all) {
      v = {v.x, -v.z, v.y};
    }
  };
  if (y_up) {
    turn(mesh.points);
    turn(mesh.normals);
  }
  Mesh used;
  for (auto const& t : mesh.triangles) {
    for (std::uint32_t const corner : t) {
      used.points.push_back(mesh.points[corner]);
    }
  }
  Box const box = bounds_of(used);
  Vec3 const size = box.high - box.low;
  float const longest = std::max({size.x, size.y, size.z});
  if (!(longest > 1e-30F) || !std::isfinite(longest)) {
    throw DataError(fmt::format("{} has a longest side of {} (a mesh must have an extent), export it again", path, longest));
  }
  Placement const placement = fit_into(used, kLongestSide);
  for (Vec3& p : mesh.points) {
    p = (p - placement.centre) * placement.scale;
  }
}

// Keeps the triangles that have an area.
void drop_slivers(MeshData& mesh) {
  std::size_t kept = 0;
  for (std::size_t t = 0; t < mesh.triangles.size(); ++t) {
    if (length(face_normal(mesh, mesh.triangles[t])) < 1e-12F) {
      continue;
    }
    mesh.triangles[kept] = mesh.triangles[t];
    if (!mesh.material_of.empty()) {
      mesh.material_of[kept] = mesh.material_of[t];
    }
    ++kept;
  }
  mesh.triangles.resize(kept);
  if (!mesh.material_of.empty()) {
    mesh.material_of.resize(kept);
  }
}

// Gives every triangle corners of its own, then each corner the mean normal (by area) of the faces at its place that turn away by less
// than 50 degrees from its own face.
void make_normals(MeshData& mesh) {
  constexpr float kCosine = 0.6428F;
  constexpr std::size_t kMostFaces = 64;  // at one place; beyond, the first ones decide
  MeshData own;
  std::vector<Vec3> face;
  for (auto& t : mesh.triangles) {
    Vec3 const normal = face_normal(mesh, t);
    for (std::uint32_t& corner : t) {
      own.points.push_back(mesh.points[corner]);
      if (!mesh.colours.empty()) {
        own.colours.push_back(mesh.colours[corner]);
      }
      if (!mesh.uvs.empty()) {
        own.uvs.push_back(mesh.uvs[corner]);
      }
      face.push_back(normal);
      corner = static_cast<std::uint32_t>(own.points.size() - 1);
    }
  }
  std::vector<std::uint32_t> by_place(own.points.size());
  std::iota(by_place.begin(), by_place.end(), 0U);
  auto const key = [&](std::uint32_t i) { return std::array<float, 3>{own.points[i].x, own.points[i].y, own.points[i].z}; };
  std::sort(by_place.begin(), by_place.end(), [&](std::uint32_t a, std::uint32_t b) { return key(a) != key(b) ? key(a) < key(b) : a < b; });
  own.normals.resize(own.points.size());
  for (std::size_t begin = 0, end = 0; begin < by_place.size(); begin = end) {
    while (end < by_place.size() && key(by_place[end]) == key(by_place[begin])) {
      ++end;
    }
    for (std::size_t i = begin; i < end; ++i) {
      Vec3 const mine = face[by_place[i]];
      Vec3 sum = mine;
      for (std::size_t j = begin; j < std::min(end, begin + kMostFaces); ++j) {
        if (i != j && dot(normalised(mine), normalised(face[by_place[j]])) > kCosine) {
          sum = sum + face[by_place[j]];
        }
      }
      own.normals[by_place[i]] = normalised(sum);
    }
  }
  mesh.points = std::move(own.points);
  mesh.normals = std::move(own.normals);
  mesh.colours = std::move(own.colours);
  mesh.uvs = std::move(own.uvs);
}

// Bilinear, repeated in both directions.
Vec3 look_up(Image8 const& image, float u, float v) {
  auto const texel = [&](std::int64_t row, std::int64_t column) {
    auto const wrapped = [](std::int64_t i, std::int64_t n) { return (i % n + n) % n; };
    std::uint8_t const* const p =
        &image.pixels[static_cast<std::size_t>((wrapped(row, image.height) * image.width + wrapped(column, image.width)) * image.channels)];
    return Vec3{from_srgb(static_cast<float>(p[0]) / 255), from_srgb(static_cast<float>(p[1]) / 255),
                from_srgb(static_cast<float>(p[2]) / 255)};
  };
  if (!std::isfinite(u) || !std::isfinite(v)) {
    return texel(0, 0);
  }
  float const x = (u - std::floor(u)) * static_cast<float>(image.width) - 0.5F,
              y = (1 - (v - std::floor(v))) * static_cast<float>(image.height) - 0.5F;
  auto const column = static_cast<std::int64_t>(std::floor(x)), row = static_cast<std::int64_t>(std::floor(y));
  float const right = x - std::floor(x), below = y - std::floor(y);
  return mix(mix(texel(row, column), texel(row, column + 1), right), mix(texel(row + 1, column), texel(row + 1, column + 1), right), below);
}

SurfaceAt surface_of(std::shared_ptr<MeshData const> mesh) {
  return [mesh](SurfacePoint const& at) {
    auto const& corners = mesh->triangles[at.triangle];
    MeshMaterial const& material = mesh->materials[mesh->material_of.empty() ? 0 : mesh->material_of[at.triangle]];
    float const w[3] = {1 - at.u - at.v, at.u, at.v};
    Vec3 colour = material.colour;
    if (!mesh->colours.empty()) {
      colour = colour * (mesh->colours[corners[0]] * w[0] + mesh->colours[corners[1]] * w[1] + mesh->colours[corners[2]] * w[2]);
    }
    if (!mesh->uvs.empty() && !material.texture.pixels.empty()) {
      float uv[2] = {0, 0};
      for (std::size_t c = 0; c < 3; ++c) {
        uv[0] += w[c] * mesh->uvs[corners[c]][0];
        uv[1] += w[c] * mesh->uvs[corners[c]][1];
      }
      colour = colour * look_up(material.texture, uv[0], uv[1]);
    }
    float const roughness = std::clamp(material.roughness, 0.2F, 1.0F);  // a mirror's picture of a few texels is noise
    return mix(plastic(colour, roughness), metal(colour, roughness), std::clamp(material.metallic, 0.0F, 1.0F));
  };
}

}  // namespace

MeshUp mesh_up(std::string const& name) {
  if (name == "auto") {
    return MeshUp::by_format;
  }
  if (name == "y") {
    return MeshUp::y;
  }
  if (name == "z") {
    return MeshUp::z;
  }
  throw DataError(fmt::format("\"{}\" is no axis that meshes have up, give auto, y or z", name));
}

std::vector<std::string> mesh_files(std::string const& file_or_folder) {
  std::error_code error;
  if (std::filesystem::is_regular_file(file_or_folder, error)) {
    if (!is_mesh(file_or_folder)) {
      throw DataError(fmt::format("{} is no mesh by its name, give an .obj, .ply, .gltf or .glb file", file_or_folder));
    }
    return {file_or_folder};
  }
  std::vector<std::string> files;
  for (auto const& entry : std::filesystem::directory_iterator(file_or_folder, error)) {
    if (entry.is_regular_file() && is_mesh(entry.path().string())) {
      files.push_back(entry.path().string());
    }
  }
  if (files.empty()) {
    throw DataError(fmt::format("no mesh found in {} ({}), give an .obj, .ply, .gltf or .glb file or a folder of them", file_or_folder,
                                error ? error.message() : "it has no such file"));
  }
  std::sort(files.begin(), files.end());
  return files;
}

LoadedObject load_mesh(std::string const& path, MeshUp up, KeyedRandom random) {
  bool const ply = format_of(path) == ".ply";
  auto data = std::make_shared<MeshData>(ply ? read_ply(path) : read_with_assimp(path));
  check(*data, path);
  if (data->triangles.empty()) {
    throw DataError(fmt::format("{} has no triangle ({} points), give a mesh with faces", path, data->points.size()));
  }
  place(*data, up == MeshUp::y || (up == MeshUp::by_format && !ply), path);
  drop_slivers(*data);
  if (data->triangles.empty()) {
    throw DataError(fmt::format("{} has no triangle with an area, export it again", path));
  }
  bool const whole =
      std::all_of(data->normals.begin(), data->normals.end(), [](Vec3 const& n) { return std::isfinite(length(n)) && length(n) > 0.1F; });
  if (data->normals.empty() || !whole) {
    make_normals(*data);
  }
  for (Vec3& n : data->normals) {
    n = normalised(n);
  }

  LoadedObject loaded;
  loaded.has_colours = !data->colours.empty() ||
                       std::any_of(data->materials.begin(), data->materials.end(), [](MeshMaterial const& m) { return m.from_file; });
  for (MeshMaterial& material : data->materials) {  // points bring the colour where the file names no material
    if (!material.from_file && !data->colours.empty()) {
      material.colour = {1, 1, 1};
    }
  }
  loaded.object.name = std::filesystem::path(path).stem().string();
  loaded.object.mesh = {data->points, data->normals, data->triangles, true};
  loaded.object.surface_at = loaded.has_colours ? surface_of(data) : patches(random);
  return loaded;
}

}  // namespace duoflow::data
