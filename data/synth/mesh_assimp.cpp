// Meshes through assimp (Open Asset Import Library 5, libassimp5), of which only C functions are used, found at run time.

#include <assimp/cimport.h>
#include <assimp/config.h>
#include <assimp/material.h>
#include <assimp/postprocess.h>
#include <assimp/scene.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <charconv>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>

#include "data/error.h"
#include "data/images/picture.h"
#include "data/synth/mesh_data.h"

namespace duoflow::data {
namespace {

struct AssimpApi {  // the functions of <assimp/cimport.h> and <assimp/material.h> by their names without "ai"
  decltype(&::aiImportFileExWithProperties) import_file;
  decltype(&::aiReleaseImport) release_import;
  decltype(&::aiGetErrorString) get_error_string;
  decltype(&::aiCreatePropertyStore) create_property_store;
  decltype(&::aiReleasePropertyStore) release_property_store;
  decltype(&::aiSetImportPropertyInteger) set_import_property_integer;
  decltype(&::aiGetMaterialColor) get_material_color;
  decltype(&::aiGetMaterialFloatArray) get_material_float_array;
  decltype(&::aiGetMaterialString) get_material_string;
};

AssimpApi load_assimp() {
  std::unique_ptr<void, int (*)(void*)> handle(dlopen("libassimp.so.5", RTLD_NOW | RTLD_LOCAL), &dlclose);
  auto const find = [&](auto& function, char const* name) {
    void* const symbol = handle ? dlsym(handle.get(), name) : nullptr;
    if (symbol == nullptr) {
      char const* const error = dlerror();
      throw DataError(
          fmt::format("assimp cannot be used ({}), and OBJ and glTF meshes need it. Install the package libassimp5 "
                      "(launch/setup.sh does), or convert the mesh to PLY",
                      error == nullptr ? name : error));
    }
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
  };
  AssimpApi api{};
  find(api.import_file, "aiImportFileExWithProperties");
  find(api.release_import, "aiReleaseImport");
  find(api.get_error_string, "aiGetErrorString");
  find(api.create_property_store, "aiCreatePropertyStore");
  find(api.release_property_store, "aiReleasePropertyStore");
  find(api.set_import_property_integer, "aiSetImportPropertyInteger");
  find(api.get_material_color, "aiGetMaterialColor");
  find(api.get_material_float_array, "aiGetMaterialFloatArray");
  find(api.get_material_string, "aiGetMaterialString");
  static_cast<void>(handle.release());  // never closed: the pointers are kept
  return api;
}

AssimpApi const& assimp() {
  static AssimpApi const api = load_assimp();  // after a failure the next call tries again
  return api;
}

Vec3 to_vec(aiVector3D const& v) { return {v.x, v.y, v.z}; }

// The picture a material names: beside the mesh file, or inside it ("*3").
Image8 read_texture(aiScene const& scene, std::string const& name, std::string const& path) {
  if (name.starts_with('*')) {
    std::size_t index = scene.mNumTextures;  // what is no number names none
    std::from_chars(name.data() + 1, name.data() + name.size(), index);
    if (index >= scene.mNumTextures) {
      throw DataError(fmt::format("{} names its picture {} of {}, export it again", path, name, scene.mNumTextures));
    }
    aiTexture const& texture = *scene.mTextures[index];
    if (texture.mHeight != 0) {  // uncompressed
      Image8 image{texture.mHeight, texture.mWidth, 3, {}};
      for (std::size_t i = 0; i < static_cast<std::size_t>(texture.mHeight) * texture.mWidth; ++i) {
        image.pixels.insert(image.pixels.end(), {texture.pcData[i].r, texture.pcData[i].g, texture.pcData[i].b});
      }
      return image;
    }
    return decode_encoded({reinterpret_cast<char const*>(texture.pcData), texture.mWidth}, fmt::format("{}, picture {}", path, index));
  }
  std::string file = name;
  std::replace(file.begin(), file.end(), '\\', '/');
  std::filesystem::path const inside = std::filesystem::path(file).lexically_normal();
  if (inside.is_absolute() || (!inside.empty() && *inside.begin() == "..")) {
    throw DataError(fmt::format("{} names its picture {} (which is not in the mesh's folder or below), put it there and name it from there", path, name));
  }
  return read_image((std::filesystem::path(path).parent_path() / inside).string());
}

MeshMaterial read_material(aiScene const& scene, aiMaterial const* material, std::string const& path) {
  AssimpApi const& api = assimp();
  MeshMaterial read;
  aiString name;
  read.from_file =
      api.get_material_string(material, AI_MATKEY_NAME, &name) != aiReturn_SUCCESS || std::string(name.C_Str()) != AI_DEFAULT_MATERIAL_NAME;
  aiColor4D colour;
  if (api.get_material_color(material, AI_MATKEY_BASE_COLOR, &colour) == aiReturn_SUCCESS ||
      api.get_material_color(material, AI_MATKEY_COLOR_DIFFUSE, &colour) == aiReturn_SUCCESS) {
    read.colour = {std::clamp(colour.r, 0.0F, 1.0F), std::clamp(colour.g, 0.0F, 1.0F), std::clamp(colour.b, 0.0F, 1.0F)};
  }
  static_cast<void>(api.get_material_float_array(material, AI_MATKEY_METALLIC_FACTOR, &read.metallic, nullptr));
  static_cast<void>(api.get_material_float_array(material, AI_MATKEY_ROUGHNESS_FACTOR, &read.roughness, nullptr));
  aiString texture;
  if (api.get_material_string(material, AI_MATKEY_TEXTURE(aiTextureType_BASE_COLOR, 0), &texture) == aiReturn_SUCCESS ||
      api.get_material_string(material, AI_MATKEY_TEXTURE(aiTextureType_DIFFUSE, 0), &texture) == aiReturn_SUCCESS) {
    read.texture = read_texture(scene, texture.C_Str(), path);
  }
  return read;
}

// Appends one mesh of a scene; what earlier meshes lack is filled in, so that every array has an entry per point.
void append(MeshData& all, aiMesh const& mesh) {
  auto const base = static_cast<std::uint32_t>(all.points.size());
  auto const extend = [&](auto& array, bool has, auto filler, auto const& value_of) {
    if (!has && array.empty()) {
      return;
    }
    array.resize(base, filler);
    for (unsigned i = 0; i < mesh.mNumVertices; ++i) {
      array.push_back(has ? value_of(i) : filler);
    }
  };
  for (unsigned i = 0; i < mesh.mNumVertices; ++i) {
    all.points.push_back(to_vec(mesh.mVertices[i]));
  }
  extend(all.normals, mesh.mNormals != nullptr, Vec3{}, [&](unsigned i) { return to_vec(mesh.mNormals[i]); });
  extend(all.colours, mesh.mColors[0] != nullptr, Vec3{1, 1, 1}, [&](unsigned i) {
    aiColor4D const& c = mesh.mColors[0][i];
    return Vec3{c.r, c.g, c.b};
  });
  extend(all.uvs, mesh.mTextureCoords[0] != nullptr, std::array<float, 2>{}, [&](unsigned i) {
    return std::array<float, 2>{mesh.mTextureCoords[0][i].x, mesh.mTextureCoords[0][i].y};
  });
  for (unsigned f = 0; f < mesh.mNumFaces; ++f) {
    unsigned const* const corners = mesh.mFaces[f].mIndices;
    if (mesh.mFaces[f].mNumIndices != 3) {
      continue;  // not after these steps
    }
    all.triangles.push_back({corners[0] + base, corners[1] + base, corners[2] + base});
    all.material_of.push_back(mesh.mMaterialIndex);
  }
}

}  // namespace

MeshData read_with_assimp(std::string const& path) {
  AssimpApi const& api = assimp();
  std::unique_ptr<aiPropertyStore, decltype(api.release_property_store)> const properties(api.create_property_store(),
                                                                                          api.release_property_store);
  api.set_import_property_integer(properties.get(), AI_CONFIG_PP_SBP_REMOVE, aiPrimitiveType_POINT | aiPrimitiveType_LINE);
  unsigned const steps = aiProcess_ValidateDataStructure | aiProcess_Triangulate | aiProcess_SortByPType | aiProcess_PreTransformVertices;
  std::unique_ptr<aiScene const, decltype(api.release_import)> const scene(api.import_file(path.c_str(), steps, nullptr, properties.get()),
                                                                           api.release_import);
  if (!scene) {
    throw DataError(fmt::format("{} cannot be read as a mesh ({}), export it again", path, api.get_error_string()));
  }
  MeshData all;
  for (unsigned m = 0; m < scene->mNumMeshes; ++m) {
    append(all, *scene->mMeshes[m]);
  }
  for (unsigned m = 0; m < scene->mNumMaterials; ++m) {
    all.materials.push_back(read_material(*scene, scene->mMaterials[m], path));
  }
  if (all.materials.empty()) {
    all.materials.resize(1);
  }
  return all;
}

}  // namespace duoflow::data
