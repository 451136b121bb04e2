#include "data/synth/mesh.h"

#include <unordered_map>

namespace duoflow::data {
namespace {

// The six tetrahedra around a cube's main diagonal 0-7 (corner bits: x = 1, y = 2, z = 4); neighbours share faces.
constexpr int kTetrahedra[6][4] = {{0, 1, 3, 7}, {0, 3, 2, 7}, {0, 2, 6, 7}, {0, 6, 4, 7}, {0, 4, 5, 7}, {0, 5, 1, 7}};

class Mesher {
 public:
  Mesher(SolidField const& field, float half_extent, int cells)
      : field_(field), half_(half_extent), cells_(cells), side_(cells + 1), step_(2 * half_extent / static_cast<float>(cells)) {
    values_.reserve(static_cast<std::size_t>(side_) * static_cast<std::size_t>(side_) * static_cast<std::size_t>(side_));
    for (int z = 0; z < side_; ++z) {
      for (int y = 0; y < side_; ++y) {
        for (int x = 0; x < side_; ++x) {
          values_.push_back(field_(corner(x, y, z)));
        }
      }
    }
  }

  Mesh run() {
    for (int z = 0; z < cells_; ++z) {
      for (int y = 0; y < cells_; ++y) {
        for (int x = 0; x < cells_; ++x) {
          cell(x, y, z);
        }
      }
    }
    return std::move(mesh_);
  }

 private:
  struct Corner {
    std::uint32_t id;
    Vec3 point;
    float value;
  };

  Vec3 corner(int x, int y, int z) const {
    return {static_cast<float>(x) * step_ - half_, static_cast<float>(y) * step_ - half_, static_cast<float>(z) * step_ - half_};
  }

  void cell(int x, int y, int z) {
    Corner corners[8];
    int inside = 0;
    for (int c = 0; c < 8; ++c) {
      int const cx = x + (c & 1), cy = y + ((c >> 1) & 1), cz = z + (c >> 2);
      auto const id = static_cast<std::uint32_t>((cz * side_ + cy) * side_ + cx);
      corners[c] = {id, corner(cx, cy, cz), values_[id]};
      inside += corners[c].value < 0 ? 1 : 0;
    }
    if (inside == 0 || inside == 8) {
      return;
    }
    for (auto const& tetrahedron : kTetrahedra) {
      Corner const* in[4];
      Corner const* out[4];
      int ins = 0, outs = 0;
      for (int const c : tetrahedron) {
        if (corners[c].value < 0) {
          in[ins++] = &corners[c];
        } else {
          out[outs++] = &corners[c];
        }
      }
      if (ins == 1) {
        triangle(edge(in[0], out[0]), edge(in[0], out[1]), edge(in[0], out[2]), in[0]->point);
      } else if (ins == 3) {
        triangle(edge(in[0], out[0]), edge(in[1], out[0]), edge(in[2], out[0]), in[0]->point);
      } else if (ins == 2) {
        auto const a = edge(in[0], out[0]), b = edge(in[0], out[1]), c = edge(in[1], out[1]), d = edge(in[1], out[0]);
        triangle(a, b, c, in[0]->point);
        triangle(a, c, d, in[0]->point);
      }
    }
  }

  // The crossing on one grid edge, made once, so that neighbouring triangles share it bit for bit.
  std::uint32_t edge(Corner const* a, Corner const* b) {
    if (a->id > b->id) {
      std::swap(a, b);
    }
    auto const [found, added] =
        crossings_.try_emplace((static_cast<std::uint64_t>(a->id) << 32) | b->id, static_cast<std::uint32_t>(mesh_.points.size()));
    if (added) {
      float const t = std::clamp(a->value / (a->value - b->value), 0.02F, 0.98F);  // keeps slivers away from the corners
      Vec3 const point = mix(a->point, b->point, t);
      mesh_.points.push_back(point);
      mesh_.normals.push_back(gradient(point));
    }
    return found->second;
  }

  Vec3 gradient(Vec3 p) const {
    float const h = 0.25F * step_;
    return normalised({field_({p.x + h, p.y, p.z}) - field_({p.x - h, p.y, p.z}), field_({p.x, p.y + h, p.z}) - field_({p.x, p.y - h, p.z}),
                       field_({p.x, p.y, p.z + h}) - field_({p.x, p.y, p.z - h})});
  }

  void triangle(std::uint32_t a, std::uint32_t b, std::uint32_t c, Vec3 inside) {
    Vec3 const& p = mesh_.points[a];
    Vec3 const normal = cross(mesh_.points[b] - p, mesh_.points[c] - p);
    if (dot(normal, p - inside) < 0) {
      std::swap(b, c);
    }
    mesh_.triangles.push_back({a, b, c});
  }

  SolidField const& field_;
  float half_;
  int cells_, side_;
  float step_;
  std::vector<float> values_;
  std::unordered_map<std::uint64_t, std::uint32_t> crossings_;
  Mesh mesh_;
};

}  // namespace

Mesh mesh_of(SolidField const& field, float half_extent, int cells) { return Mesher(field, half_extent, cells).run(); }

Box bounds_of(Mesh const& mesh) {
  Box box{mesh.points.at(0), mesh.points[0]};
  for (Vec3 const& p : mesh.points) {
    box.low = {std::min(box.low.x, p.x), std::min(box.low.y, p.y), std::min(box.low.z, p.z)};
    box.high = {std::max(box.high.x, p.x), std::max(box.high.y, p.y), std::max(box.high.z, p.z)};
  }
  return box;
}

Placement fit_into(Mesh& mesh, float longest) {
  if (mesh.points.empty()) {
    return {};
  }
  auto const [low, high] = bounds_of(mesh);
  Vec3 const size = high - low;
  Placement const placement{(low + high) * 0.5F, longest / std::max({size.x, size.y, size.z})};
  for (Vec3& p : mesh.points) {
    p = (p - placement.centre) * placement.scale;
  }
  return placement;
}

}  // namespace duoflow::data
