#pragma once
// Embree, opened at run time: only `duoflow synth` needs it, and its library is larger than the program and everything
// else that the program loads beside LibTorch. What does not trace pictures runs on machines that lack it.

#include <embree3/rtcore.h>

namespace duoflow::data {

// The functions of <embree3/rtcore.h> by their names without "rtc".
struct EmbreeApi {
  decltype(&::rtcNewDevice) new_device;
  decltype(&::rtcReleaseDevice) release_device;
  decltype(&::rtcGetDeviceError) get_device_error;
  decltype(&::rtcNewScene) new_scene;
  decltype(&::rtcReleaseScene) release_scene;
  decltype(&::rtcSetSceneFlags) set_scene_flags;
  decltype(&::rtcSetSceneBuildQuality) set_scene_build_quality;
  decltype(&::rtcCommitScene) commit_scene;
  decltype(&::rtcNewGeometry) new_geometry;
  decltype(&::rtcReleaseGeometry) release_geometry;
  decltype(&::rtcSetNewGeometryBuffer) set_new_geometry_buffer;
  decltype(&::rtcCommitGeometry) commit_geometry;
  decltype(&::rtcAttachGeometry) attach_geometry;
  decltype(&::rtcIntersect1) intersect1;
  decltype(&::rtcOccluded1) occluded1;
};

// From a shared library given by name or path, which then stays loaded. DataError when it or one of the functions is
// missing.
EmbreeApi load_embree(char const* library);
// From this machine's Embree 3, loaded by the first call that finds it; from any thread.
EmbreeApi const& embree();

}  // namespace duoflow::data
