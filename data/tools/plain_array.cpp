#include "data/tools/plain_array.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <system_error>

#include "data/error.h"
#include "data/file.h"
#include "data/tools/float_rows.h"

namespace duoflow::data {
namespace {

struct PlainRow {
  PlainType type;
  char const* text;
  std::size_t bytes;
};
constexpr std::array<PlainRow, 7> kPlainTypes{
    {{PlainType::u8, "u8", 1},
     {PlainType::i64, "i64", 8},
     {PlainType::f16, "f16", 2},
     {PlainType::bf16, "bf16", 2},
     {PlainType::f32, "f32", 4},
     {PlainType::f64, "f64", 8},
     {PlainType::other, "of a type that is none of u8, i64, f16, bf16, f32, f64", 0}}};

// Bytes of the whole array; DataError where a damaged or hostile shape leaves 63 bits, a row of an empty array included.
std::uint64_t checked_bytes(std::string const& where, PlainType type, std::vector<std::int64_t> const& shape) {
  std::uint64_t bytes = std::max<std::size_t>(1, byte_size(type));
  bool empty = false;
  for (auto const size : shape) {
    auto const factor = static_cast<std::uint64_t>(std::max<std::int64_t>(1, size));
    if (size < 0 || bytes > std::uint64_t{std::numeric_limits<std::int64_t>::max()} / factor)
      throw DataError(fmt::format("{} has shape [{}] (no file holds that: it is damaged), make it again", where,
                                  fmt::join(shape, ",")));
    empty = empty || size == 0;
    bytes *= factor;
  }
  return empty || byte_size(type) == 0 ? 0 : bytes;
}

}  // namespace

std::string to_string(PlainType type) { return kPlainTypes.at(static_cast<std::size_t>(type)).text; }

std::size_t byte_size(PlainType type) { return kPlainTypes.at(static_cast<std::size_t>(type)).bytes; }

std::int64_t PlainArray::row_numbers() const {
  std::int64_t numbers = 1;
  for (std::size_t axis = 1; axis < shape.size(); ++axis) numbers *= shape[axis];
  return numbers;
}

std::size_t PlainArray::row_bytes() const { return static_cast<std::size_t>(row_numbers()) * byte_size(type); }

std::vector<float> PlainArray::floats(std::int64_t row) const {
  if (type == PlainType::other || type == PlainType::i64 || type == PlainType::u8)
    throw DataError(fmt::format("{} is {} (floats are needed), store f32, f16 or bf16", where, to_string(type)));
  auto const count = static_cast<std::size_t>(row_numbers());
  std::vector<std::byte> bytes(row_bytes());
  read(row, 1, bytes.data());
  switch (type) {
    case PlainType::f32:
      return widen(DType::f32, bytes.data(), count);
    case PlainType::f16:
      return widen(DType::f16, bytes.data(), count);
    case PlainType::bf16:
      return widen(DType::bf16, bytes.data(), count);
    default:
      break;
  }
  std::vector<float> numbers(count);
  for (std::size_t i = 0; i < count; ++i) {
    double value = 0;
    std::memcpy(&value, bytes.data() + i * sizeof(double), sizeof(double));
    numbers[i] = static_cast<float>(value);
  }
  return numbers;
}

PlainArray array_in_file(std::string const& path, std::string const& where, PlainType type,
                         std::vector<std::int64_t> const& shape, std::uint64_t offset) {
  auto const file = std::make_shared<FileDescriptor const>(path);
  auto const bytes = checked_bytes(where, type, shape), size = file->size();
  if (offset > size || bytes > size - offset)
    throw DataError(
        fmt::format("{}: {} [{}] needs {} bytes from byte {} on (the file has {}: cut short), copy it again", where,
                    to_string(type), fmt::join(shape, ","), bytes, offset, size));
  PlainArray array{where, type, shape, {}};
  auto const row_bytes = shape.empty() || shape[0] == 0 ? 0 : bytes / static_cast<std::uint64_t>(shape[0]);
  array.read = [file, where, offset, row_bytes](std::int64_t first, std::int64_t rows, void* destination) {
    auto const wanted = static_cast<std::size_t>(rows) * row_bytes;
    try {
      if (file->read_at(offset + static_cast<std::uint64_t>(first) * row_bytes, destination, wanted) == wanted) return;
    } catch (std::system_error const& error) {
      throw DataError(fmt::format("{} row {} cannot be read ({}), check the disk", where, first, error.what()));
    }
    throw DataError(
        fmt::format("{} ends inside row {} (it was cut short while it was read), copy it again", where, first));
  };
  return array;
}

}  // namespace duoflow::data
