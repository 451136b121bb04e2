#include "data/synth/arrangement.h"

#include <numbers>

#include "data/synth/finish.h"
#include "data/synth/shape.h"

namespace duoflow::data {
namespace {

constexpr float kTurn = 2 * std::numbers::pi_v<float>;

// Where an object stands: world = turned(local) * scale + shift.
struct Place {
  float turn = 0, scale = 1;
  Vec3 shift;

  Vec3 to_world(Vec3 p) const { return turned_about_z(p, -turn) * scale + shift; }
  Vec3 to_local(Vec3 p) const { return turned_about_z((p - shift) * (1 / scale), turn); }
};

struct Member {
  std::uint32_t first_triangle;
  SurfaceAt surface_at;
  Place place;
};

class Assembly {
 public:
  void add(Object const& object, Place const& place) {
    members_.push_back({static_cast<std::uint32_t>(mesh_.triangles.size()), object.surface_at, place});
    auto const base = static_cast<std::uint32_t>(mesh_.points.size());
    for (Vec3 const& p : object.mesh.points) {
      mesh_.points.push_back(place.to_world(p));
    }
    for (Vec3 const& n : object.mesh.normals) {
      mesh_.normals.push_back(turned_about_z(n, -place.turn));
    }
    for (auto const& t : object.mesh.triangles) {
      mesh_.triangles.push_back({t[0] + base, t[1] + base, t[2] + base});
    }
    mesh_.two_sided = mesh_.two_sided || object.mesh.two_sided;
  }

  Object finish(std::string const& name) {
    Placement const placement = fit_into(mesh_, kLongestSide);
    auto const surface_at = [members = std::move(members_), placement](SurfacePoint at) {
      auto const next = std::upper_bound(members.begin(), members.end(), at.triangle,
                                         [](std::uint32_t triangle, Member const& member) { return triangle < member.first_triangle; });
      Member const& member = *(next - 1);
      at.point = member.place.to_local(at.point * (1 / placement.scale) + placement.centre);
      at.triangle -= member.first_triangle;
      return member.surface_at(at);
    };
    return {name, std::move(mesh_), surface_at};
  }

 private:
  Mesh mesh_;
  std::vector<Member> members_;
};

float reach_of(Mesh const& mesh) {  // from the vertical axis
  float squared = 0;
  for (Vec3 const& p : mesh.points) {
    squared = std::max(squared, p.x * p.x + p.y * p.y);
  }
  return std::sqrt(squared);
}

Mesh disc_mesh(float radius, float thickness) {  // closed, its top at height 0
  constexpr std::uint32_t kSides = 128;
  Mesh mesh;
  auto const add = [&](Vec3 p, Vec3 n) {
    mesh.points.push_back(p);
    mesh.normals.push_back(n);
  };
  for (std::uint32_t i = 0; i < kSides; ++i) {
    float const phi = kTurn * static_cast<float>(i) / kSides;
    Vec3 const out{std::cos(phi), std::sin(phi), 0}, top = out * radius, bottom = top - Vec3{0, 0, thickness};
    add(top, {0, 0, 1});
    add(bottom, {0, 0, -1});
    add(top, out);
    add(bottom, out);
  }
  add({}, {0, 0, 1});
  add({0, 0, -thickness}, {0, 0, -1});
  for (std::uint32_t i = 0; i < kSides; ++i) {
    std::uint32_t const a = 4 * i, b = 4 * ((i + 1) % kSides), middle = 4 * kSides;
    mesh.triangles.push_back({middle, a, b});
    mesh.triangles.push_back({middle + 1, b + 1, a + 1});
    mesh.triangles.push_back({a + 2, a + 3, b + 3});
    mesh.triangles.push_back({a + 2, b + 3, b + 2});
  }
  return mesh;
}

Object make_disc(float radius, KeyedRandom random) {
  Object disc;
  disc.mesh = disc_mesh(radius, 0.03F * radius);
  Vec3 const colour = random.below(3) == 0 ? vivid(random, random.uniform()) : pale(random);
  SurfaceAt const plain = [surface = matte(colour)](SurfacePoint const&) { return surface; };
  disc.surface_at = random.below(2) == 0 ? plain : refinished(plain, Finish::textured, KeyedRandom(random.bits()));
  return disc;
}

}  // namespace

Object arranged(std::vector<Object> objects, Ground ground, std::string const& name, KeyedRandom random) {
  constexpr float kGap = 0.04F;
  Assembly assembly;
  std::vector<Place> places;
  std::vector<float> reaches;
  for (Object const& object : objects) {
    float const scale = objects.size() == 1 ? 1 : random.uniform(0.6F, 1);
    places.push_back({random.uniform(0, kTurn), scale, {0, 0, -scale * bounds_of(object.mesh).low.z}});
    reaches.push_back(scale * reach_of(object.mesh));
  }
  // The first in the middle of a ring of the others, at the narrowest distance that keeps all apart.
  if (objects.size() > 1) {
    float const widest = *std::max_element(reaches.begin() + 1, reaches.end()), others = static_cast<float>(objects.size() - 1);
    float const apart = others < 3 ? 0 : (widest + kGap) / std::sin(kTurn / 2 / others);
    float const ring = std::max(reaches.front() + widest + kGap, apart), turn = random.uniform(0, kTurn);
    for (std::size_t i = 1; i < objects.size(); ++i) {
      float const phi = turn + kTurn * static_cast<float>(i - 1) / std::max(others, 2.5F);
      places[i].shift = places[i].shift + Vec3{ring * std::cos(phi), ring * std::sin(phi), 0};
    }
  }
  Vec3 middle;
  float reach = 0;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    assembly.add(objects[i], places[i]);
    middle = middle + Vec3{places[i].shift.x, places[i].shift.y, 0} * (1 / static_cast<float>(objects.size()));
  }
  for (std::size_t i = 0; i < objects.size(); ++i) {
    reach = std::max(reach, reaches[i] + length(Vec3{places[i].shift.x, places[i].shift.y, 0} - middle));
  }
  if (ground == Ground::disc) {
    // Its top is above the lowest points by a hair, so that nothing floats.
    assembly.add(make_disc(1.2F * reach, KeyedRandom(random.bits())), {0, 1, middle + Vec3{0, 0, 0.002F}});
  }
  return assembly.finish(name);
}

}  // namespace duoflow::data
