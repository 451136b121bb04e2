#pragma once
// What a mesh file holds, before it becomes an object. Private to data/.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "data/images/image_io.h"
#include "data/synth/vec.h"

namespace duoflow::data {

struct MeshMaterial {
  Vec3 colour{0.8F, 0.8F, 0.8F};  // linear; times the texture and the point's colour
  float metallic = 0, roughness = 0.5F;
  Image8 texture;  // sRGB, row 0 at v = 1; no pixels: none
  bool from_file = false;
};

struct MeshData {
  std::vector<Vec3> points;
  std::vector<Vec3> normals;               // one per point, or none
  std::vector<Vec3> colours;               // linear, one per point, or none
  std::vector<std::array<float, 2>> uvs;   // one per point, or none
  std::vector<std::array<std::uint32_t, 3>> triangles;
  std::vector<std::uint32_t> material_of;  // one per triangle, or none: the first
  std::vector<MeshMaterial> materials;     // at least one
};

// More take longer to build than to render, and are most often a mistake.
inline constexpr std::size_t kMostTriangles = 10'000'000;

inline float from_srgb(float x) {
  return x <= 0.04045F ? std::max(x, 0.0F) / 12.92F : std::pow((std::min(x, 1.0F) + 0.055F) / 1.055F, 2.4F);
}

// Faces of more corners become fans. DataError naming the file and what is wrong: cut short, an index out of range, ...
MeshData read_ply(std::string const& path);
// OBJ, glTF and GLB (Draco's compression too) by assimp's C interface, opened at run time as Embree is (embree_api.h).
MeshData read_with_assimp(std::string const& path);

}  // namespace duoflow::data
