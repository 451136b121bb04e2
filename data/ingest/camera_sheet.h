#pragma once
// A picture for checking the camera convention by eye, and the numbers beside it. Private to data/.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/ingest/lvsm_scene.h"

namespace duoflow::data {

// Says for the first object (for up to four where a sheet is wanted) how well the outlines in its pictures agree with the cameras.
// What seems wrong: each object to whose pictures another reading of the poses fits far better.
//
// A sheet is a PNG, "" for none: one row for each of the objects, six views each; over every picture the world's axes (X red, Y green,
// Z blue) and a cube around the point that the cameras look at, all of one size in the world. Where cameras and pictures agree, they
// stand still on the object from view to view; "behind" is written where they lie behind the camera.
std::vector<IngestProblem> check_poses(std::string const& sheet, std::span<LvsmScene const> scenes, SourceFiles const& files, FileTable const& table,
                                       std::function<void(std::string const&)> const& say);

}  // namespace duoflow::data
