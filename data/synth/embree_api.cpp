#include "data/synth/embree_api.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <memory>
#include <string>
#include <type_traits>

#include "data/error.h"

namespace duoflow::data {
namespace {

DataError no_embree(std::string const& why) {
  return DataError(fmt::format(
      "Embree cannot be used ({}), and path tracing needs it. Install the package libembree3-3 (launch/setup.sh does), "
      "set LD_LIBRARY_PATH to a folder with libembree3.so.3, or use a bundle packed with launch/bundle.sh --synth",
      why));
}

std::string last_error() {  // dlerror is per thread
  char const* const error = dlerror();
  return error == nullptr ? "no reason given" : error;
}

}  // namespace

EmbreeApi load_embree(char const* library) {
  // RTLD_NOW: what Embree itself lacks shows here, not in the middle of a picture.
  std::unique_ptr<void, int (*)(void*)> handle(dlopen(library, RTLD_NOW | RTLD_LOCAL), &dlclose);
  if (handle == nullptr) {
    throw no_embree(last_error());
  }
  EmbreeApi api{};
  auto const find = [&](auto& function, char const* name) {
    void* const symbol = dlsym(handle.get(), name);
    if (symbol == nullptr) {
      throw no_embree(last_error());
    }
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol);
  };
  find(api.new_device, "rtcNewDevice");
  find(api.release_device, "rtcReleaseDevice");
  find(api.get_device_error, "rtcGetDeviceError");
  find(api.new_scene, "rtcNewScene");
  find(api.release_scene, "rtcReleaseScene");
  find(api.set_scene_flags, "rtcSetSceneFlags");
  find(api.set_scene_build_quality, "rtcSetSceneBuildQuality");
  find(api.commit_scene, "rtcCommitScene");
  find(api.new_geometry, "rtcNewGeometry");
  find(api.release_geometry, "rtcReleaseGeometry");
  find(api.set_new_geometry_buffer, "rtcSetNewGeometryBuffer");
  find(api.commit_geometry, "rtcCommitGeometry");
  find(api.attach_geometry, "rtcAttachGeometry");
  find(api.intersect1, "rtcIntersect1");
  find(api.occluded1, "rtcOccluded1");
  static_cast<void>(handle.release());  // never closed: the pointers are kept, and Embree has threads
  return api;
}

EmbreeApi const& embree() {
  static EmbreeApi const api = load_embree("libembree3.so.3");  // after a failure the next call tries again
  return api;
}

}  // namespace duoflow::data
