#include "data/synth/path_tracer.h"

#include <fmt/format.h>

#include <atomic>
#include <cstring>
#include <limits>
#include <thread>

#include "data/error.h"
#include "data/synth/embree_api.h"
#include "data/synth/light_sum.h"

namespace duoflow::data {
namespace {

// Directions followed from the 1st, 2nd, ... surface a path meets. Splitting at the first ones is where noise is bought off
// cheapest: small lights are found by many directions, and most of these leave the object at once.
constexpr std::uint32_t kBranches[] = {16, 2, 1, 1};
constexpr std::size_t kMostVertices = std::size(kBranches);

// AVX-512 variants round differently, so they are switched off; one thread builds the same tree every time.
constexpr char const* kDeviceConfig = "threads=1,max_isa=avx2";

struct Hit {
  Vec3 point, geometric, shading;  // unit outward normals
};

}  // namespace

struct PathTracer::Scene {
  Object const& object;
  EmbreeApi const& api;
  RTCDevice device;
  RTCScene scene;

  explicit Scene(Object const& of);
  ~Scene() {
    api.release_scene(scene);
    api.release_device(device);
  }
  Scene(Scene const&) = delete;

  bool intersect(Vec3 origin, Vec3 direction, Hit& hit) const;
};

PathTracer::Scene::Scene(Object const& of) : object(of), api(embree()), device(api.new_device(kDeviceConfig)) {
  if (device == nullptr) {
    throw std::runtime_error("Embree gave no device, check that libembree3 matches this processor");
  }
  scene = api.new_scene(device);
  api.set_scene_flags(scene, RTC_SCENE_FLAG_ROBUST);
  api.set_scene_build_quality(scene, RTC_BUILD_QUALITY_HIGH);
  RTCGeometry const geometry = api.new_geometry(device, RTC_GEOMETRY_TYPE_TRIANGLE);
  Mesh const& mesh = object.mesh;
  // Embree's own buffers carry the padding its wide loads need.
  void* const points =
      api.set_new_geometry_buffer(geometry, RTC_BUFFER_TYPE_VERTEX, 0, RTC_FORMAT_FLOAT3, sizeof(Vec3), mesh.points.size());
  void* const triangles =
      api.set_new_geometry_buffer(geometry, RTC_BUFFER_TYPE_INDEX, 0, RTC_FORMAT_UINT3, 3 * sizeof(std::uint32_t), mesh.triangles.size());
  std::memcpy(points, mesh.points.data(), mesh.points.size() * sizeof(Vec3));
  std::memcpy(triangles, mesh.triangles.data(), mesh.triangles.size() * 3 * sizeof(std::uint32_t));
  api.commit_geometry(geometry);
  api.attach_geometry(scene, geometry);
  api.release_geometry(geometry);
  api.commit_scene(scene);
  if (RTCError const error = api.get_device_error(device); error != RTC_ERROR_NONE) {
    throw std::runtime_error(fmt::format("Embree could not build object {} (error {}, {} triangles)", object.name,
                                         static_cast<int>(error), mesh.triangles.size()));
  }
}

bool PathTracer::Scene::intersect(Vec3 origin, Vec3 direction, Hit& hit) const {
  RTCIntersectContext context;
  rtcInitIntersectContext(&context);
  RTCRayHit ray{};
  ray.ray.org_x = origin.x;
  ray.ray.org_y = origin.y;
  ray.ray.org_z = origin.z;
  ray.ray.dir_x = direction.x;
  ray.ray.dir_y = direction.y;
  ray.ray.dir_z = direction.z;
  ray.ray.tfar = std::numeric_limits<float>::infinity();
  ray.ray.mask = ~0U;
  ray.hit.geomID = RTC_INVALID_GEOMETRY_ID;
  api.intersect1(scene, &context, &ray);
  if (ray.hit.geomID == RTC_INVALID_GEOMETRY_ID) {
    return false;
  }
  auto const& corners = object.mesh.triangles[ray.hit.primID];
  auto const& normals = object.mesh.normals;
  float const u = ray.hit.u, v = ray.hit.v;
  hit.point = origin + direction * ray.ray.tfar;
  hit.geometric = normalised({ray.hit.Ng_x, ray.hit.Ng_y, ray.hit.Ng_z});
  hit.shading = normalised(normals[corners[0]] * (1 - u - v) + normals[corners[1]] * u + normals[corners[2]] * v);
  return true;
}

namespace {

// Follows the paths of one pixel.
class Walker {
 public:
  using Intersect = std::function<bool(Vec3, Vec3, Hit&)>;
  Walker(Intersect intersect, Object const& object, LightSum& sum) : intersect_(std::move(intersect)), object_(object), sum_(sum) {}

  void start_pixel(std::uint64_t key) {
    for (std::size_t vertex = 0; vertex < kMostVertices; ++vertex) {
      keys_[vertex] = mix_bits(key + vertex + 1);
    }
  }

  void walk(Hit const& hit, Vec3 towards_viewer, Vec3 throughput, std::size_t vertex, std::uint32_t index) {
    if (dot(hit.geometric, towards_viewer) <= 0) {
      return;  // a back face, through a crack no wider than rounding
    }
    bool const usable = dot(hit.shading, towards_viewer) > 1e-3F;
    Frame const frame(usable ? hit.shading : hit.geometric);
    Surface const surface = object_.surface_at(hit.point);
    Vec3 const outgoing = frame.to_local(towards_viewer);
    Vec3 const origin = hit.point + hit.geometric * 1e-4F;  // off the surface by less than a thousandth of the object
    std::uint32_t const branches = kBranches[vertex];
    for (std::uint32_t branch = 0; branch < branches; ++branch) {
      std::uint32_t const at = index * branches + branch;
      Scattered const scattered = scatter(surface, outgoing, sample_point(keys_[vertex], at));
      Vec3 const direction = frame.to_world(scattered.direction);
      Vec3 const carried = throughput * scattered.weight * (1 / static_cast<float>(branches));
      Hit next;
      if (mean(carried) <= 0 || dot(direction, hit.geometric) <= 0) {
        continue;
      }
      if (!intersect_(origin, direction, next)) {
        sum_.add(direction, carried);
      } else if (vertex + 1 < kMostVertices) {
        walk(next, -direction, carried, vertex + 1, at);
      }
    }
  }

 private:
  Intersect intersect_;
  Object const& object_;
  LightSum& sum_;
  std::uint64_t keys_[kMostVertices] = {};
};

Vec3 camera_direction(Camera const& camera, float x, float y) {
  float const local[3] = {(x - camera.fxfycxcy[2]) / camera.fxfycxcy[0], (y - camera.fxfycxcy[3]) / camera.fxfycxcy[1], 1};
  float const* const m = camera.c2w;
  return normalised({m[0] * local[0] + m[1] * local[1] + m[2] * local[2], m[4] * local[0] + m[5] * local[1] + m[6] * local[2],
                     m[8] * local[0] + m[9] * local[1] + m[10] * local[2]});
}

}  // namespace

PathTracer::PathTracer(Object const& object) : scene_(std::make_unique<Scene>(object)) {}
PathTracer::~PathTracer() = default;

void PathTracer::trace(Camera const& camera, LightTable const& lights, TraceOptions const& options, PixelSink const& sink) const {
  if (options.samples_per_pixel < 1 || options.samples_per_pixel > kMostSamples) {
    throw DataError(fmt::format("samples_per_pixel is {} (must be 1 to {}), give a number in that range", options.samples_per_pixel,
                                kMostSamples));
  }
  Vec3 const eye{camera.c2w[3], camera.c2w[7], camera.c2w[11]};
  auto const samples = static_cast<std::uint32_t>(options.samples_per_pixel);
  std::atomic<std::int64_t> next_row{0};
  auto const work = [&] {
    LightSum sum(lights);
    Walker walker([this](Vec3 origin, Vec3 direction, Hit& hit) { return scene_->intersect(origin, direction, hit); }, scene_->object, sum);
    for (std::int64_t row = next_row++; row < camera.size; row = next_row++) {
      for (std::int64_t column = 0; column < camera.size; ++column) {
        std::uint64_t const key = make_key(options.key, "pixel", static_cast<std::uint64_t>(row * camera.size + column));
        walker.start_pixel(key);
        std::uint32_t hits = 0;
        for (std::uint32_t s = 0; s < samples; ++s) {
          Point2 const at = sample_point(key, s);
          Vec3 const direction = camera_direction(camera, static_cast<float>(column) + at.x, static_cast<float>(row) + at.y);
          Hit hit;
          if (scene_->intersect(eye, direction, hit)) {
            walker.walk(hit, -direction, {1, 1, 1}, 0, s);
            ++hits;
          }
        }
        float const* const radiance = sum.finish(hits == 0 ? 0 : 1 / static_cast<float>(hits));
        sink(row, column, static_cast<float>(hits) / static_cast<float>(samples), radiance);
      }
    }
  };
  auto const count = options.threads > 0 ? static_cast<unsigned>(options.threads) : std::max(1U, std::thread::hardware_concurrency());
  std::vector<std::jthread> others;
  for (unsigned t = 1; t < count; ++t) {
    others.emplace_back(work);
  }
  work();
}

}  // namespace duoflow::data
