#pragma once
// One scene of an LVSM folder as its metadata describes it, checked down to the bytes of its pictures. Private to this folder.

#include <array>
#include <string>
#include <vector>

#include "data/image_io.h"
#include "data/ingest_lvsm.h"

namespace duoflow::data {

using Remaps = std::vector<std::pair<std::string, std::string>>;

// The first pair whose OLD is the path or a folder above it, applied; the path itself when none is.
std::string remapped(std::string const& path, Remaps const& remaps);
// Paths of scene JSON files, in list order, each once. Relative ones start at their list's folder.
std::vector<std::string> listed_scenes(std::vector<std::string> const& lists, Remaps const& remaps);

struct LvsmFrame {
  std::string image, env_ldr, env_hdr;  // paths
  std::array<double, 4> fxfycxcy{};     // in pixels of the stored picture
  std::array<float, 16> c2w{};          // inverse of w2c, computed in double
  ImageSize size, env_size;
};
struct LvsmScene {
  std::string name, object, light;
  std::vector<LvsmFrame> frames;
  std::vector<IngestProblem> problems;  // empty: everything the scene needs is there and whole
  void report(std::int64_t frame, std::string problem) { problems.push_back({name, frame, std::move(problem)}); }
};

// PATH is <root>/metadata/<scene>.json; maps are taken from <root>/envmaps/<scene>/. Never throws for what the files hold.
LvsmScene read_lvsm_scene(std::string const& path, Remaps const& remaps);

}  // namespace duoflow::data
