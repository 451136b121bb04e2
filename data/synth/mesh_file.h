#pragma once
// Objects from a user's mesh files.

#include <string>
#include <vector>

#include "data/synth/keyed_random.h"
#include "data/synth/scene.h"

namespace duoflow::data {

enum class MeshUp { by_format, y, z };  // by_format: +Y of OBJ and glTF (as glTF defines and most OBJ writers do), +Z of PLY
MeshUp mesh_up(std::string const& name);  // "auto", "y", "z"; DataError for another

// The .obj, .ply, .gltf and .glb files of a folder by name, or the one file. DataError when there is none.
std::vector<std::string> mesh_files(std::string const& file_or_folder);

// Every mesh of the file as one object, named by the file: turned upright, centred, longest side kLongestSide, seen from both sides.
// Normals that are missing are computed, smooth across edges of less than 50 degrees; triangles without area are left out.
// Colours: the material's base colour times its picture and the points' colours (roughness and metallic of glTF materials). Normal
// maps, opacity and texture transforms are not used. A file that brings no colours gets two from `random`. DataError that names the
// file: unreadable, no triangle, points that are not finite or all in one place, more than kMostTriangles.
struct LoadedObject {
  Object object;
  bool has_colours;
};
LoadedObject load_mesh(std::string const& path, MeshUp up, KeyedRandom random);

}  // namespace duoflow::data
