#include "data/shards/hdf5.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "data/error.h"

namespace duoflow::data::h5 {
namespace {

// Walked from the innermost error outwards: the first description is the cause (with the system's own words).
herr_t take_first(unsigned n, H5E_error2_t const* entry, void* reason) {
  if (n == 0 && entry->desc != nullptr) *static_cast<std::string*>(reason) = entry->desc;
  return 0;
}

Handle file_access() {
  Handle access(check(H5Pcreate(H5P_FILE_ACCESS), "H5Pcreate", "memory"), &H5Pclose);
  check(H5Pset_file_locking(access.get(), false, true), "H5Pset_file_locking", "memory");
  return access;
}

// A 16-bit float type made from the 32-bit one, as bit fields.
Handle small_float(std::size_t exponent_bits, std::size_t mantissa_bits, std::size_t bias) {
  Handle type(check(H5Tcopy(H5T_IEEE_F32LE), "H5Tcopy", "memory"), &H5Tclose);
  check(H5Tset_fields(type.get(), 15, mantissa_bits, exponent_bits, 0, mantissa_bits), "H5Tset_fields", "memory");
  check(H5Tset_ebias(type.get(), bias), "H5Tset_ebias", "memory");
  check(H5Tset_precision(type.get(), 16), "H5Tset_precision", "memory");
  check(H5Tset_size(type.get(), 2), "H5Tset_size", "memory");
  return type;
}

Handle text_type(std::size_t bytes, H5T_cset_t letters) {
  Handle type(check(H5Tcopy(H5T_C_S1), "H5Tcopy", "memory"), &H5Tclose);
  check(H5Tset_size(type.get(), bytes), "H5Tset_size", "memory");
  check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), "H5Tset_strpad", "memory");
  check(H5Tset_cset(type.get(), letters), "H5Tset_cset", "memory");
  return type;
}

void write_raw_attribute(hid_t object, char const* name, hid_t type, hid_t space, void const* bytes) {
  Handle attribute(check(H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT), "H5Acreate2", name), &H5Aclose);
  check(H5Awrite(attribute.get(), type, bytes), "H5Awrite", name);
}

Handle scalar() { return {check(H5Screate(H5S_SCALAR), "H5Screate", "memory"), &H5Sclose}; }

Handle find_attribute(hid_t object, char const* name) {
  if (check(H5Aexists(object, name), "H5Aexists", name) == 0) return {};
  return {check(H5Aopen(object, name, H5P_DEFAULT), "H5Aopen", name), &H5Aclose};
}

}  // namespace

std::unique_lock<std::recursive_mutex> lock() {
  static std::recursive_mutex mutex;
  std::unique_lock<std::recursive_mutex> held(mutex);
  // At the end of the process the library would flush once more a file that a full disk kept it from closing, and crash.
  static bool const without_exit_work = H5dont_atexit() >= 0;
  static_cast<void>(without_exit_work);
  // Errors are thrown, not printed. The setting is per thread where the library is built thread-safe.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  return held;
}

Handle::Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}

Handle& Handle::operator=(Handle&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(close_, other.close_);
  return *this;
}

bool Handle::reset() {
  if (id_ < 0) return true;
  auto const held = lock();
  return close_(std::exchange(id_, -1)) >= 0;
}

void fail(char const* doing, std::string const& where) {
  std::string reason = "no reason given";
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, &take_first, &reason);
  bool const full = reason.find(fmt::format("errno = {},", ENOSPC)) != std::string::npos;
  std::replace(reason.begin(), reason.end(), '\n', ' ');  // of the time that the library writes into it
  throw DataError(fmt::format("{} failed in {} ({}), {}", doing, where, reason,
                              full ? "make room on the disk" : "check the disk or make the shard again"));
}

Handle create_file(std::string const& path) {
  auto const held = lock();
  auto const access = file_access();
  check(H5Pset_alignment(access.get(), 65536, 4096), "H5Pset_alignment", path);
  check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V18), "H5Pset_libver_bounds", path);
  Handle const creation(check(H5Pcreate(H5P_FILE_CREATE), "H5Pcreate", path), &H5Pclose);
  check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times", path);
  return {check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), "H5Fcreate", path), &H5Fclose};
}

Handle open_file(std::string const& path) {
  auto const held = lock();
  auto const access = file_access();
  return {check(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), "H5Fopen", path), &H5Fclose};
}

Handle type_of(DType dtype) {
  auto const held = lock();
  auto const copy = [](hid_t type) { return Handle(check(H5Tcopy(type), "H5Tcopy", "memory"), &H5Tclose); };
  switch (dtype) {
    case DType::u8: return copy(H5T_STD_U8LE);
    case DType::i64: return copy(H5T_STD_I64LE);
    case DType::f16: return small_float(5, 10, 15);
    case DType::bf16: return small_float(8, 7, 127);
    case DType::f32: return copy(H5T_IEEE_F32LE);
    case DType::name: return text_type(kNameBytes, H5T_CSET_UTF8);
  }
  throw DataError("a number type outside the schema, make the data again");
}

std::optional<StoredType> recognise(hid_t type) {
  auto const held = lock();
  if (H5Tget_class(type) == H5T_STRING) {
    bool const ours = H5Tis_variable_str(type) == 0 && H5Tget_size(type) == kNameBytes;
    return ours ? std::optional(StoredType{DType::name, true}) : std::nullopt;
  }
  if (H5Tget_class(type) != H5T_INTEGER && H5Tget_class(type) != H5T_FLOAT) return std::nullopt;
  for (auto const dtype : {DType::u8, DType::i64, DType::f16, DType::bf16, DType::f32}) {
    auto const ours = type_of(dtype);
    if (H5Tequal(type, ours.get()) > 0) return StoredType{dtype, true};
    if (byte_size(dtype) == 1) continue;
    check(H5Tset_order(ours.get(), H5T_ORDER_BE), "H5Tset_order", "memory");
    if (H5Tequal(type, ours.get()) > 0) return StoredType{dtype, false};
  }
  return std::nullopt;
}

Handle space_of(std::vector<std::int64_t> const& shape) {
  auto const held = lock();
  std::vector<hsize_t> const dims(shape.begin(), shape.end());
  return {check(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), "H5Screate_simple", "memory"), &H5Sclose};
}

std::vector<std::int64_t> shape_of(hid_t space) {
  auto const held = lock();
  auto const axes = check(H5Sget_simple_extent_ndims(space), "H5Sget_simple_extent_ndims", "memory");
  std::vector<hsize_t> dims(static_cast<std::size_t>(axes));
  check(H5Sget_simple_extent_dims(space, dims.data(), nullptr), "H5Sget_simple_extent_dims", "memory");
  return {dims.begin(), dims.end()};
}

void select_rows(hid_t space, std::vector<std::int64_t> const& shape, std::int64_t first, std::int64_t rows) {
  auto const held = lock();
  std::vector<hsize_t> start(shape.size(), 0), count(shape.begin(), shape.end());
  start.at(0) = static_cast<hsize_t>(first);
  count.at(0) = static_cast<hsize_t>(rows);
  check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr), "H5Sselect_hyperslab", "memory");
}

void write_attribute(hid_t object, char const* name, std::string const& text) {
  auto const held = lock();
  // The library has no text of zero bytes; one NUL reads back as empty.
  std::string const bytes = text.empty() ? std::string(1, '\0') : text;
  write_raw_attribute(object, name, text_type(bytes.size(), H5T_CSET_UTF8).get(), scalar().get(), bytes.data());
}

void write_attribute(hid_t object, char const* name, std::int64_t number) {
  auto const held = lock();
  write_raw_attribute(object, name, H5T_STD_I64LE, scalar().get(), &number);
}

void write_attribute(hid_t object, char const* name, std::vector<float> const& numbers) {
  auto const held = lock();
  auto const space = space_of({static_cast<std::int64_t>(numbers.size())});
  write_raw_attribute(object, name, H5T_IEEE_F32LE, space.get(), numbers.data());
}

std::optional<std::string> read_text_attribute(hid_t object, char const* name) {
  auto const held = lock();
  auto const attribute = find_attribute(object, name);
  if (!attribute.open()) return std::nullopt;
  Handle const type(check(H5Aget_type(attribute.get()), "H5Aget_type", name), &H5Tclose);
  if (H5Tget_class(type.get()) != H5T_STRING) throw DataError(fmt::format("attribute {} is not text, make the shard again", name));
  if (H5Tis_variable_str(type.get()) > 0) {
    char* text = nullptr;
    check(H5Aread(attribute.get(), type.get(), &text), "H5Aread", name);
    std::string const copy = text == nullptr ? "" : text;
    H5free_memory(text);
    return copy;
  }
  std::string text(H5Tget_size(type.get()), '\0');
  check(H5Aread(attribute.get(), type.get(), text.data()), "H5Aread", name);
  text.resize(std::min(text.size(), text.find('\0')));
  return text;
}

std::optional<std::int64_t> read_integer_attribute(hid_t object, char const* name) {
  auto const held = lock();
  auto const attribute = find_attribute(object, name);
  if (!attribute.open()) return std::nullopt;
  std::int64_t number = 0;
  Handle const space(check(H5Aget_space(attribute.get()), "H5Aget_space", name), &H5Sclose);
  if (H5Sget_simple_extent_npoints(space.get()) != 1)
    throw DataError(fmt::format("attribute {} is not one number, make the shard again", name));
  check(H5Aread(attribute.get(), H5T_NATIVE_INT64, &number), "H5Aread", name);
  return number;
}

std::vector<float> read_float_attribute(hid_t object, char const* name) {
  auto const held = lock();
  auto const attribute = find_attribute(object, name);
  if (!attribute.open()) return {};
  Handle const space(check(H5Aget_space(attribute.get()), "H5Aget_space", name), &H5Sclose);
  std::vector<float> numbers(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space.get())));
  check(H5Aread(attribute.get(), H5T_NATIVE_FLOAT, numbers.data()), "H5Aread", name);
  return numbers;
}

}  // namespace duoflow::data::h5
