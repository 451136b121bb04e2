#pragma once
// Which light map lights a scene, turned how and how strongly (ingest_lvsm.h says where that is written). Private to data/.

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/ingest/source_files.h"

namespace duoflow::data {

using Remaps = std::vector<std::pair<std::string, std::string>>;

struct LightSource {
  std::string file;
  std::array<double, 3> rotation_euler{};  // radians
  double strength = 1;
};

// radiance towards world direction d = strength * map(R d), R = Rz(c) Ry(b) Rx(a), row-major.
std::array<float, 9> env_rotation(std::array<double, 3> const& rotation_euler);

class LightSources {
 public:
  // Folders ("" for no renders); `files` must outlive this. DataError when a folder is not there or lights.json cannot be read.
  LightSources(SourceFiles const& files, std::string envmaps, std::string renders, Remaps remaps);
  ~LightSources();
  // DataError with the reason alone when the scene has none.
  LightSource find(std::string const& scene, std::string const& object, std::string const& light) const;

 private:
  LightSource from_entry(nlohmann::json const& entry, std::string const& where) const;
  std::optional<std::string> map_named(std::string const& name) const;

  SourceFiles const& files_;
  std::string envmaps_, renders_;
  Remaps remaps_;
  std::unique_ptr<nlohmann::json> table_;  // lights.json
};

}  // namespace duoflow::data
