#pragma once
// A picture for checking the camera convention by eye, and the numbers beside it. Private to this folder.

#include <functional>
#include <span>
#include <string>

#include "data/lvsm_scene.h"

namespace duoflow::data {

// A PNG: one row for each of up to four objects, six views each; over every picture the world's axes (X red, Y green, Z blue) and a
// cube around the point that the cameras look at, all of one size in the world. Where cameras and pictures agree, they stand still on
// the object from view to view; "behind" is written where they lie behind the camera.
// Says for each of the objects how well the outlines agree, and which other reading of the pose would fit better when one does.
void draw_camera_sheet(std::string const& path, std::span<LvsmScene const> scenes, SourceFiles const& files, FileTable const& table,
                       std::function<void(std::string const&)> const& say);

}  // namespace duoflow::data
