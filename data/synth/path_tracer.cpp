#include "data/synth/path_tracer.h"

#include <fmt/format.h>

#include <atomic>
#include <cstring>
#include <limits>
#include <optional>
#include <thread>

#include "data/error.h"
#include "data/synth/embree_api.h"
#include "data/synth/light_directions.h"
#include "data/synth/light_sum.h"

namespace duoflow::data {
namespace {

// Directions followed from the 1st, 2nd, ... surface a path meets. Splitting at the first ones is where noise is bought off
// cheapest: small lights are found by many directions, and most of these leave the object at once.
constexpr std::uint32_t branches_at(std::size_t vertex) { return vertex == 0 ? 16 : vertex == 1 ? 2 : 1; }

// AVX-512 variants round differently, so they are switched off; one thread builds the same tree every time.
constexpr char const* kDeviceConfig = "threads=1,max_isa=avx2";

struct Hit {
  SurfacePoint at;
  Vec3 geometric, shading;  // unit normals, outward (of two-sided meshes: to any side)
};

RTCRay ray_from(Vec3 origin, Vec3 direction) {
  RTCRay ray{};
  ray.org_x = origin.x;
  ray.org_y = origin.y;
  ray.org_z = origin.z;
  ray.dir_x = direction.x;
  ray.dir_y = direction.y;
  ray.dir_z = direction.z;
  ray.tfar = std::numeric_limits<float>::infinity();
  ray.mask = ~0U;
  return ray;
}

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
  bool is_blocked(Vec3 origin, Vec3 direction) const;
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
  RTCRayHit ray{.ray = ray_from(origin, direction), .hit = {}};
  ray.hit.geomID = RTC_INVALID_GEOMETRY_ID;
  api.intersect1(scene, &context, &ray);
  if (ray.hit.geomID == RTC_INVALID_GEOMETRY_ID) {
    return false;
  }
  auto const& corners = object.mesh.triangles[ray.hit.primID];
  auto const& normals = object.mesh.normals;
  float const u = ray.hit.u, v = ray.hit.v;
  hit.at = {origin + direction * ray.ray.tfar, ray.hit.primID, u, v};
  hit.geometric = normalised({ray.hit.Ng_x, ray.hit.Ng_y, ray.hit.Ng_z});
  hit.shading = normalised(normals[corners[0]] * (1 - u - v) + normals[corners[1]] * u + normals[corners[2]] * v);
  return true;
}

bool PathTracer::Scene::is_blocked(Vec3 origin, Vec3 direction) const {
  RTCIntersectContext context;
  rtcInitIntersectContext(&context);
  RTCRay ray = ray_from(origin, direction);
  api.occluded1(scene, &context, &ray);
  return ray.tfar < 0;
}

// Follows the paths of one pixel.
class PathTracer::Walker {
 public:
  Walker(Scene const& scene, LightTable const& lights, LightDirections const* directions, TraceOptions const& options)
      : scene_(scene), lights_(lights), directions_(directions), options_(options), sum_(lights) {}

  void start_pixel(std::uint64_t key) {
    for (std::size_t vertex = 0; vertex < static_cast<std::size_t>(options_.bounces); ++vertex) {
      keys_[vertex] = mix_bits(key + vertex + 1);
    }
  }
  float const* finish_pixel(float scale) { return sum_.finish(scale); }

  void walk(Hit hit, Vec3 towards_viewer, Vec3 throughput, std::size_t vertex, std::uint32_t index) {
    if (!turn(hit, towards_viewer)) {
      return;
    }
    bool const usable = dot(hit.shading, towards_viewer) > 1e-3F;
    Point const point{Frame(usable ? hit.shading : hit.geometric), hit.geometric,
                      hit.at.point + hit.geometric * 1e-4F,  // off the surface by less than a thousandth of the object
                      scene_.object.surface_at(hit.at), towards_viewer};
    follow_reflection(point, throughput, vertex, index);
    if (directions_ != nullptr) {
      look_towards_lights(point, throughput, vertex, index);
    }
  }

 private:
  struct Point {
    Frame frame;
    Vec3 geometric, origin;
    Surface surface;
    Vec3 towards_viewer;
  };

  // Normals to the viewer's side. False for a back face, seen through a crack no wider than rounding.
  bool turn(Hit& hit, Vec3 towards_viewer) const {
    if (dot(hit.geometric, towards_viewer) > 0) {
      if (scene_.object.mesh.two_sided && dot(hit.geometric, hit.shading) < 0) {
        hit.shading = -hit.shading;
      }
      return true;
    }
    if (!scene_.object.mesh.two_sided) {
      return false;
    }
    hit.geometric = -hit.geometric;
    if (dot(hit.geometric, hit.shading) < 0) {
      hit.shading = -hit.shading;
    }
    return dot(hit.geometric, towards_viewer) > 0;
  }

  void follow_reflection(Point const& point, Vec3 throughput, std::size_t vertex, std::uint32_t index) {
    Vec3 const outgoing = point.frame.to_local(point.towards_viewer);
    std::uint32_t const branches = branches_at(vertex);
    for (std::uint32_t branch = 0; branch < branches; ++branch) {
      std::uint32_t const at = index * branches + branch;
      Scattered const scattered = scatter(point.surface, outgoing, sample_point(keys_[vertex], at));
      Vec3 const direction = point.frame.to_world(scattered.direction);
      Vec3 const carried = throughput * scattered.weight * (1 / static_cast<float>(branches));
      Hit next;
      if (mean(carried) <= 0 || dot(direction, point.geometric) <= 0) {
        continue;
      }
      if (!scene_.intersect(point.origin, direction, next)) {
        std::int64_t const texel = texel_towards(direction, lights_.height(), lights_.width());
        if (directions_ == nullptr) {
          sum_.add(texel, carried);
        } else {
          float const own = static_cast<float>(branches) * scatter_density(point.surface, outgoing, scattered.direction);
          sum_.add(texel, carried * (own / (own + static_cast<float>(looks_at(vertex)) * directions_->density(texel))));
        }
      } else if (vertex + 1 < static_cast<std::size_t>(options_.bounces)) {
        walk(next, -direction, carried, vertex + 1, at);
      }
    }
  }

  std::uint32_t looks_at(std::size_t vertex) const {
    return static_cast<std::uint32_t>(vertex == 0 ? options_.light_directions : std::max(1, options_.light_directions / 16));
  }

  void look_towards_lights(Point const& point, Vec3 throughput, std::size_t vertex, std::uint32_t index) {
    Vec3 const outgoing = point.frame.to_local(point.towards_viewer);
    std::uint64_t const key = mix_bits(keys_[vertex] ^ 0x4C69676874ULL);  // other points than the reflection's
    std::uint32_t const looks = looks_at(vertex);
    for (std::uint32_t look = 0; look < looks; ++look) {
      LightDirections::Drawn const drawn = directions_->draw(sample_point(key, index * looks + look));
      Vec3 const incoming = point.frame.to_local(drawn.direction);
      Vec3 const value = bsdf_times_cosine(point.surface, outgoing, incoming);
      if (mean(value) <= 0 || dot(drawn.direction, point.geometric) <= 0 || scene_.is_blocked(point.origin, drawn.direction)) {
        continue;
      }
      float const densities = static_cast<float>(looks) * drawn.density +
                              static_cast<float>(branches_at(vertex)) * scatter_density(point.surface, outgoing, incoming);
      sum_.add(drawn.texel, throughput * value * (1 / densities));
    }
  }

  Scene const& scene_;
  LightTable const& lights_;
  LightDirections const* directions_;
  TraceOptions const& options_;
  LightSum sum_;
  std::uint64_t keys_[kMostBounces] = {};
};

namespace {

Vec3 camera_direction(Camera const& camera, float x, float y) {
  float const local[3] = {(x - camera.fxfycxcy[2]) / camera.fxfycxcy[0], (y - camera.fxfycxcy[3]) / camera.fxfycxcy[1], 1};
  float const* const m = camera.c2w;
  return normalised({m[0] * local[0] + m[1] * local[1] + m[2] * local[2], m[4] * local[0] + m[5] * local[1] + m[6] * local[2],
                     m[8] * local[0] + m[9] * local[1] + m[10] * local[2]});
}

void check(TraceOptions const& options) {
  auto const in_range = [](char const* name, std::int64_t value, std::int64_t low, std::int64_t high) {
    if (value < low || value > high) {
      throw DataError(fmt::format("{} is {} (must be {} to {}), give a number in that range", name, value, low, high));
    }
  };
  in_range("samples_per_pixel", options.samples_per_pixel, 1, kMostSamples);
  in_range("bounces", options.bounces, 1, kMostBounces);
  in_range("light_directions", options.light_directions, 0, kMostLightDirections);
}

}  // namespace

PathTracer::PathTracer(Object const& object) : scene_(std::make_unique<Scene>(object)) {}
PathTracer::~PathTracer() = default;

void PathTracer::trace(Camera const& camera, LightTable const& lights, TraceOptions const& options, PixelSink const& sink) const {
  check(options);
  std::optional<LightDirections> directions;
  if (options.light_directions > 0) {
    directions.emplace(lights);
  }
  Vec3 const eye{camera.c2w[3], camera.c2w[7], camera.c2w[11]};
  auto const samples = static_cast<std::uint32_t>(options.samples_per_pixel);
  std::atomic<std::int64_t> next_row{0};
  auto const work = [&] {
    Walker walker(*scene_, lights, directions ? &*directions : nullptr, options);
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
        float const* const radiance = walker.finish_pixel(hits == 0 ? 0 : 1 / static_cast<float>(hits));
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
