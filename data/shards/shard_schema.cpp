#include "data/shards/shard_schema.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "data/error.h"

namespace duoflow::data {
namespace {

struct TypeRow {
  DType dtype;
  char const* text;
  std::size_t bytes;
};
constexpr std::array<TypeRow, 6> kTypes{{{DType::u8, "u8", 1},
                                         {DType::i64, "i64", 8},
                                         {DType::f16, "f16", 2},
                                         {DType::bf16, "bf16", 2},
                                         {DType::f32, "f32", 4},
                                         {DType::name, "name", kNameBytes}}};

TypeRow const& row_of(DType dtype) { return kTypes.at(static_cast<std::size_t>(dtype)); }

}  // namespace

std::size_t byte_size(DType dtype) { return row_of(dtype).bytes; }

std::string to_string(DType dtype) { return row_of(dtype).text; }

DType dtype_from_string(std::string const& text) {
  for (auto const& row : kTypes)
    if (text == row.text) return row.dtype;
  throw DataError(fmt::format("unknown number type \"{}\" (known: u8, i64, f16, bf16, f32, name), make the data again", text));
}

std::string to_string(ShardKind kind) { return kind == ShardKind::scene ? "scene" : "pair"; }

ShardKind kind_from_string(std::string const& text) {
  if (text == "scene") return ShardKind::scene;
  if (text == "pair") return ShardKind::pair;
  throw DataError(fmt::format("unknown kind of shard \"{}\" (known: scene, pair), make the data again", text));
}

std::size_t DatasetSpec::row_bytes() const {
  std::size_t bytes = byte_size(dtype);
  for (std::size_t axis = 1; axis < shape.size(); ++axis) bytes *= static_cast<std::size_t>(shape[axis]);
  return bytes;
}

}  // namespace duoflow::data
