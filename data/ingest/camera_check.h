#pragma once
// Whether pictures and cameras belong together, judged by the objects' outlines. Private to data/.

#include <array>
#include <cstdint>
#include <vector>

namespace duoflow::data {

struct CheckView {
  std::array<float, 16> c2w{};   // as ingested
  std::array<float, 4> fxfycxcy{};
  std::int64_t height = 0, width = 0;
  std::vector<std::uint8_t> alpha;  // [H,W]; empty: none
};

// How the pose in a metadata file might be meant.
enum class PoseReading { w2c_opencv, w2c_opengl, c2w_opencv, c2w_opengl };
inline constexpr std::array<PoseReading, 4> kPoseReadings{PoseReading::w2c_opencv, PoseReading::w2c_opengl, PoseReading::c2w_opencv, PoseReading::c2w_opengl};
char const* to_string(PoseReading reading);
// The c2w (OpenCV) that the pose means under a reading, from the c2w of the reading that ingest takes (w2c_opencv).
std::array<float, 16> read_as(std::array<float, 16> const& c2w, PoseReading reading);

// The point nearest to all optical axes, and half the side of the cube around it that every camera sees.
struct Common {
  std::array<double, 3> centre{};
  double reach = 0;
};
Common common_to(std::vector<CheckView> const& views);

// Pixel (u, v) and depth of a point; a depth that is not positive lies behind the camera.
std::array<double, 3> project(std::array<float, 16> const& c2w, std::array<float, 4> const& fxfycxcy, std::array<double, 3> const& point);

// Share of the covered pixels (alpha > 0.5) on which the shape that all outlines allow falls, the mean over the views: near 1 when
// cameras and pictures agree, near 0 when the convention is another. -1 when that says nothing: without alpha,
// with fewer than three views, or with outlines that fill the pictures.
double outline_agreement(std::vector<CheckView> const& views, PoseReading reading);

}  // namespace duoflow::data
