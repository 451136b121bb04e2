#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "dist/checkpoint/safetensors_file.h"
#include "dist/error.h"
#include "text/json.h"

namespace duoflow::dist {
namespace {

using Json = nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr std::uint64_t alignment = 64;
constexpr std::size_t most_axes = 64;  // LibTorch's own limit

struct DtypeRow {
  char const* name;
  at::ScalarType type;
};
constexpr std::array<DtypeRow, 8> dtypes{{{"F32", at::kFloat},
                                          {"F16", at::kHalf},
                                          {"BF16", at::kBFloat16},
                                          {"F64", at::kDouble},
                                          {"I64", at::kLong},
                                          {"I32", at::kInt},
                                          {"U8", at::kByte},
                                          {"BOOL", at::kBool}}};

std::uint64_t element_bytes(std::string const& dtype, std::string const& where) {
  return c10::elementSize(dtype_of(dtype, where));
}

// Bytes of a tensor; throws where the product leaves 63 bits, as a damaged shape can make it. Of an empty tensor too:
// LibTorch multiplies the other sizes for its strides.
std::uint64_t tensor_bytes(TensorEntry const& entry, std::string const& where) {
  if (entry.shape.size() > most_axes) {
    throw CheckpointError(fmt::format("{}: {} axes, {} are the most", where, entry.shape.size(), most_axes));
  }
  std::uint64_t bytes = element_bytes(entry.dtype, where);
  bool empty = false;
  for (std::int64_t const size : entry.shape) {
    empty = empty || size == 0;
    auto const factor = static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1));
    if (bytes > std::uint64_t{std::numeric_limits<std::int64_t>::max()} / factor) {
      throw CheckpointError(fmt::format("{}: shape [{}] is too large", where, fmt::join(entry.shape, ", ")));
    }
    bytes *= factor;
  }
  return empty ? 0 : bytes;
}

std::vector<std::uint64_t> unsigned_numbers(Json const& tensor, char const* key, std::string const& where) {
  auto const found = tensor.find(key);
  bool const valid = found != tensor.end() && found->is_array() &&
                     std::all_of(found->begin(), found->end(), [](Json const& v) { return v.is_number_unsigned(); });
  if (!valid) throw CheckpointError(fmt::format("{}: \"{}\" is not a list of non-negative whole numbers", where, key));
  return found->get<std::vector<std::uint64_t>>();
}

TensorEntry parse_entry(std::string const& name, Json const& tensor, SafetensorsHeader const& header,
                        std::uint64_t file_bytes, std::string const& where) {
  if (!tensor.is_object() || tensor.size() != 3 || !tensor.contains("dtype") || !tensor["dtype"].is_string()) {
    throw CheckpointError(fmt::format("{}: expected exactly dtype, shape and data_offsets", where));
  }
  TensorEntry entry;
  entry.name = name;
  entry.dtype = tensor["dtype"].get<std::string>();
  for (std::uint64_t const size : unsigned_numbers(tensor, "shape", where)) {
    if (size > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
      throw CheckpointError(fmt::format("{}: size {} is too large", where, size));
    }
    entry.shape.push_back(static_cast<std::int64_t>(size));
  }
  auto const offsets = unsigned_numbers(tensor, "data_offsets", where);
  std::uint64_t const data_bytes = file_bytes - header.data_begin;
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data_bytes) {
    throw CheckpointError(
        fmt::format("{}: data_offsets [{}] do not lie within the file's {} bytes of data (cut short or "
                    "damaged)",
                    where, fmt::join(offsets, ", "), data_bytes));
  }
  entry.offset = header.data_begin + offsets[0];
  entry.bytes = offsets[1] - offsets[0];
  if (std::uint64_t const expected = tensor_bytes(entry, where); entry.bytes != expected) {
    throw CheckpointError(fmt::format("{}: {} [{}] needs {} bytes, data_offsets give {}", where, entry.dtype,
                                      fmt::join(entry.shape, ", "), expected, entry.bytes));
  }
  return entry;
}

// Every byte of the data belongs to exactly one tensor, as the format demands.
void check_coverage(SafetensorsHeader const& header, std::uint64_t file_bytes, std::string const& where) {
  std::uint64_t next = header.data_begin;
  for (TensorEntry const& entry : header.entries) {
    if (entry.offset != next) {
      throw CheckpointError(fmt::format("{}: tensor \"{}\" starts at byte {}, expected {} ({})", where, entry.name,
                                        entry.offset, next, entry.offset < next ? "tensors overlap" : "unnamed bytes"));
    }
    next += entry.bytes;
  }
  if (next != file_bytes) {
    throw CheckpointError(fmt::format("{}: the last tensor ends at byte {}, the file at {}", where, next, file_bytes));
  }
}

SafetensorsMetadata parse_metadata(Json const& json, std::string const& where) {
  bool const valid =
      json.is_object() && std::all_of(json.begin(), json.end(), [](Json const& value) { return value.is_string(); });
  if (!valid) throw CheckpointError(where + ": __metadata__ is not a map of strings");
  return json.get<SafetensorsMetadata>();
}

}  // namespace

std::string dtype_name(at::ScalarType type, std::string const& where) {
  for (DtypeRow const& row : dtypes) {
    if (row.type == type) return row.name;
  }
  throw CheckpointError(fmt::format("{}: type {} cannot be stored", where, c10::toString(type)));
}

at::ScalarType dtype_of(std::string const& name, std::string const& where) {
  std::string known;
  for (DtypeRow const& row : dtypes) {
    if (row.name == name) return row.type;
    known += fmt::format(" {}", row.name);
  }
  throw CheckpointError(fmt::format("{}: unknown dtype \"{}\", known are{}", where, name, known));
}

TensorEntry describe_tensor(NamedTensor const& named, std::string const& where) {
  std::string const here = fmt::format("{}: tensor \"{}\"", where, named.name);
  if (!named.tensor.defined()) throw CheckpointError(here + " is undefined");
  TensorEntry entry;
  entry.name = named.name;
  entry.dtype = dtype_name(named.tensor.scalar_type(), here);
  entry.shape = named.tensor.sizes().vec();
  entry.bytes = tensor_bytes(entry, here);
  return entry;
}

std::string format_header(std::vector<TensorEntry>& entries, SafetensorsMetadata const& metadata,
                          std::string const& where) {
  std::set<std::string> names;
  Json json = Json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  std::uint64_t end = 0;
  for (TensorEntry& entry : entries) {
    if (entry.name == "__metadata__" || !names.insert(entry.name).second) {
      throw CheckpointError(fmt::format("{}: tensor name \"{}\" is reserved or there twice", where, entry.name));
    }
    entry.offset = end;
    entry.bytes = tensor_bytes(entry, where);
    end += entry.bytes;
    json[entry.name] = {{"dtype", entry.dtype}, {"shape", entry.shape}, {"data_offsets", {entry.offset, end}}};
  }
  std::string text;
  try {
    text = json.dump();
  } catch (nlohmann::json::exception const& error) {
    throw CheckpointError(fmt::format("{}: a name or metadata is not UTF-8 ({})", where, error.what()));
  }
  std::uint64_t const unaligned = sizeof(std::uint64_t) + text.size();
  text.append((alignment - unaligned % alignment) % alignment, ' ');
  std::uint64_t const length = text.size();
  std::string header(sizeof length, '\0');
  std::memcpy(header.data(), &length, sizeof length);
  for (TensorEntry& entry : entries) entry.offset += header.size() + text.size();
  return header + text;
}

SafetensorsHeader parse_header(std::string const& text, std::uint64_t file_bytes, std::string const& where) {
  Json json;
  try {
    json = text::parse_json<Json>(text);
  } catch (std::exception const& error) {
    throw CheckpointError(fmt::format("{}: the header is not JSON as expected ({})", where, error.what()));
  }
  if (!json.is_object()) throw CheckpointError(where + ": the header is not a JSON object");
  SafetensorsHeader header;
  header.data_begin = sizeof(std::uint64_t) + text.size();
  for (auto const& [name, tensor] : json.items()) {
    if (name == "__metadata__") {
      header.metadata = parse_metadata(tensor, where);
    } else {
      header.entries.push_back(
          parse_entry(name, tensor, header, file_bytes, fmt::format("{}: tensor \"{}\"", where, name)));
    }
  }
  // By end as well: an empty tensor and its neighbour may share a start.
  std::stable_sort(header.entries.begin(), header.entries.end(), [](TensorEntry const& a, TensorEntry const& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes == 0 && b.bytes > 0;
  });
  check_coverage(header, file_bytes, where);
  return header;
}

}  // namespace duoflow::dist
