#include "data/synth/scene.h"

#include <fmt/format.h>

#include <array>

#include "data/synth/kinds.h"

namespace duoflow::data {
namespace {

constexpr int kCells = 64;  // of the meshing grid, a side: a cell is smaller than a pixel of a 64 px picture

Kind const& kind_of(std::uint64_t seed, std::int64_t index) {
  std::size_t const place = static_cast<std::size_t>(index) % kinds().size(), group = place / kKindGroup;
  std::array<std::size_t, kKindGroup> order{0, 1, 2, 3};
  KeyedRandom random(make_key(seed, "order", group));
  for (std::size_t i = kKindGroup - 1; i > 0; --i) {
    std::swap(order[i], order[static_cast<std::size_t>(random.below(static_cast<int>(i) + 1))]);
  }
  return kinds()[group * kKindGroup + order[place % kKindGroup]];
}

}  // namespace

Object make_object(std::uint64_t seed, std::int64_t index) {
  Kind const& kind = kind_of(seed, index);
  std::int64_t const earlier_uses = index / static_cast<std::int64_t>(kinds().size());
  Shape const shape = kind.make(KeyedRandom(make_key(seed, "object", static_cast<std::uint64_t>(index))));
  Object object;
  object.name = earlier_uses == 0 ? kind.name : fmt::format("{}_{}", kind.name, earlier_uses);
  object.mesh = mesh_of(shape.field, kShapeHalfExtent, kCells);
  Placement const placement = fit_into(object.mesh, kLongestSide);
  object.surface_at = [surface = shape.surface, placement](SurfacePoint const& at) {
    return surface(at.point * (1 / placement.scale) + placement.centre);
  };
  return object;
}

}  // namespace duoflow::data
