#pragma once
// A little LVSM folder: objects ball and cube under env_0, env_0_1 and env_1, two frames each, listed with a prefix that
// exists nowhere.

#include <functional>
#include <string>
#include <vector>

#include "../sample_folders.h"
#include "data/ingest/ingest_lvsm.h"

namespace duoflow::data::testing {

inline constexpr char const* kListedPrefix = "/nowhere/relit";

class LvsmFolder {
 public:
  LvsmFolder();  // 8 x 8 RGBA pictures, 4 x 8 light maps; fx = fy = 10, cx = cy = 4
  std::string const& root() const { return folder_.path(); }
  std::string path(std::string const& name) const { return folder_ / name; }
  std::string picture(std::string const& scene, int frame) const;
  std::string light_map(std::string const& scene, int frame, char const* kind) const;
  // Changes one frame's JSON text: OLD must be there.
  void edit_metadata(std::string const& scene, std::string const& from, std::string const& to) const;
  void add_line(std::string const& line) const;
  IngestOptions options() const;  // into root()/out

 private:
  TemporaryFolder folder_;
};

}  // namespace duoflow::data::testing
