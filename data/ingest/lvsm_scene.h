#pragma once
// One scene of an LVSM folder as its metadata describes it, then checked down to the bytes of its files. Private to data/.

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/images/image_io.h"
#include "data/ingest/ingest_files.h"
#include "data/ingest/ingest_lvsm.h"
#include "data/ingest/light_sources.h"
#include "data/ingest/scene_list.h"
#include "data/ingest/source_files.h"

namespace duoflow::data {

struct LvsmFrame {
  std::string image, env_ldr, env_hdr;  // paths; no light maps where the scene has a source
  std::array<double, 4> fxfycxcy{};     // in pixels of the stored picture
  std::array<double, 16> w2c{};
  bool has_camera = false;              // the metadata holds the numbers of the two
  std::array<float, 16> c2w{};          // inverse of w2c, computed in double
  ImageSize size, env_size;
};
struct LvsmScene {
  std::string name, object, light, root;
  std::vector<LvsmFrame> frames;
  std::optional<LightSource> source;
  std::vector<IngestProblem> problems;  // empty: everything the scene needs is there and whole
  std::vector<IngestProblem> warnings;
  void report(std::int64_t frame, std::string problem) { problems.push_back({name, frame, std::move(problem)}); }
};

// Its path is <root>/metadata/<scene>.json; per-frame maps are those of <root>/envmaps/<scene>/ unless there are `lights`. Opens no
// picture. Never throws for what the files hold.
LvsmScene read_lvsm_scene(SourceFiles const& files, ListedScene const& scene, Remaps const& remaps, LightSources const* lights);
void add_wishes(LvsmScene const& scene, std::map<std::string, FileWish>& wanted);
// Sizes, what is wrong with the scene's files, and its cameras, which need the sizes.
void complete(LvsmScene& scene, SourceFiles const& files, FileTable const& table, Remaps const& remaps);

}  // namespace duoflow::data
