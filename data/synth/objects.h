#pragma once
// Which object stands in which scene of a data set.

#include <cstdint>
#include <string>
#include <vector>

#include "data/synth/arrangement.h"
#include "data/synth/finish.h"
#include "data/synth/mesh_file.h"
#include "data/synth/scene.h"

namespace duoflow::data {

struct ObjectOptions {
  std::string meshes;  // file or folder; empty: procedural objects
  MeshUp mesh_up = MeshUp::by_format;
  std::vector<Finish> materials;  // a seeded choice among these; empty: procedural objects and meshes keep what is theirs
  std::int64_t per_scene = 1;     // 1 to kMostPerScene
  Ground ground = Ground::none;
};
inline constexpr std::int64_t kMostPerScene = 8;

class ObjectMaker {
 public:
  ObjectMaker(ObjectOptions const& options, std::uint64_t seed);  // DataError when there is no mesh
  // What scene `index` shows; depends on the seed, the options and the index alone. Names differ between indices.
  Object make(std::int64_t index) const;
  std::int64_t files() const { return static_cast<std::int64_t>(files_.size()); }

 private:
  Object make_one(std::int64_t index) const;

  ObjectOptions options_;
  std::uint64_t seed_;
  std::vector<std::string> files_, names_;  // of the meshes
};

}  // namespace duoflow::data
