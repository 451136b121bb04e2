#include "data/shards/hdf5.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
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

constexpr std::uint64_t kMostAttributeBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMostRowBytes = std::uint64_t{1} << 31, kMostUnpacking = std::uint64_t{1} << 16;

Handle find_attribute(hid_t object, char const* name) {
  if (check(H5Aexists(object, name), "H5Aexists", name) == 0) return {};
  return {check(H5Aopen(object, name, H5P_DEFAULT), "H5Aopen", name), &H5Aclose};
}

// How many values it has: the library writes all of them to wherever it is asked to read one.
std::uint64_t values_of(hid_t attribute, char const* name) {
  Handle const space(check(H5Aget_space(attribute), "H5Aget_space", name), &H5Sclose);
  auto const count = static_cast<std::uint64_t>(check(H5Sget_simple_extent_npoints(space.get()), "H5Sget_simple_extent_npoints", name));
  if (count > kMostAttributeBytes / sizeof(double))
    throw DataError(fmt::format("attribute {} has {} values (damaged), make the shard again", name, count));
  return count;
}

// Links into other files are not followed: a shard is one file.
herr_t refuse_link(char const*, char const*, char const*, char const*, unsigned*, hid_t, void*) { return -1; }

bool is_inside(std::filesystem::path const& file, std::filesystem::path const& folder) {
  std::error_code error;
  auto const there = std::filesystem::weakly_canonical(std::filesystem::absolute(file), error).parent_path();
  return !error && std::mismatch(folder.begin(), folder.end(), there.begin(), there.end()).first == folder.end();
}

// The other files that hold bytes of a dataset of a file in `folder`, as the library looks for them.
std::vector<std::filesystem::path> other_files(hid_t creation, std::filesystem::path const& folder, std::string const& where) {
  std::vector<std::filesystem::path> files;
  std::array<char, 4096> name{};
  if (auto const count = H5Pget_external_count(creation); count > 0)
    for (unsigned i = 0; i < static_cast<unsigned>(count); ++i) {
      off_t offset = 0;
      hsize_t bytes = 0;
      check(H5Pget_external(creation, i, name.size() - 1, name.data(), &offset, &bytes), "H5Pget_external", where);
      files.push_back(folder / name.data());
    }
  if (H5Pget_layout(creation) != H5D_VIRTUAL) return files;
  std::size_t count = 0;
  check(H5Pget_virtual_count(creation, &count), "H5Pget_virtual_count", where);
  for (std::size_t i = 0; i < count; ++i) {
    check(H5Pget_virtual_filename(creation, i, name.data(), name.size() - 1), "H5Pget_virtual_filename", where);
    if (std::string const file = name.data(); file != ".") files.push_back(folder / file);  // ".": itself
  }
  return files;
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

Handle open_dataset(hid_t file, std::string const& name, std::string const& path) {
  auto const held = lock();
  auto const where = path + ":" + name;
  Handle const access(check(H5Pcreate(H5P_DATASET_ACCESS), "H5Pcreate", "memory"), &H5Pclose);
  check(H5Pset_elink_cb(access.get(), &refuse_link, nullptr), "H5Pset_elink_cb", where);
  check(H5Pset_efile_prefix(access.get(), "${ORIGIN}"), "H5Pset_efile_prefix", where);  // beside the file, not where the program runs
  Handle dataset(check(H5Dopen2(file, name.c_str(), access.get()), "H5Dopen2", where), &H5Dclose);
  Handle const creation(check(H5Dget_create_plist(dataset.get()), "H5Dget_create_plist", where), &H5Pclose);
  std::error_code ignored;
  auto const folder = std::filesystem::weakly_canonical(std::filesystem::absolute(path), ignored).parent_path();
  for (auto const& other : other_files(creation.get(), folder, where))
    if (!is_inside(other, folder) || !std::filesystem::is_regular_file(other, ignored))
      throw DataError(fmt::format("{}: its bytes are in {} (no file in the shard's folder, and a shard must not reach out of it), copy the dataset "
                                  "into one file (h5repack)",
                                  where, other.string()));
  return dataset;
}

void require_plausible(std::vector<std::int64_t> const& shape, std::size_t bytes, std::uint64_t file_bytes, std::string const& where) {
  std::uint64_t row = bytes, all = 0;
  bool counted = true;
  for (std::size_t axis = 1; axis < shape.size(); ++axis)
    counted = counted && !__builtin_mul_overflow(row, static_cast<std::uint64_t>(std::max<std::int64_t>(1, shape[axis])), &row);
  auto const rows = shape.empty() ? std::uint64_t{1} : static_cast<std::uint64_t>(shape[0]);
  counted = counted && row <= kMostRowBytes && !__builtin_mul_overflow(row, rows, &all);
  if (!counted || all / kMostUnpacking > file_bytes)
    throw DataError(fmt::format("{} has shape [{}] (more than its file of {} bytes can hold: it is damaged), make it again", where,
                                fmt::join(shape, ","), file_bytes));
}

std::vector<std::int64_t> shape_of(hid_t space) {
  auto const held = lock();
  auto const axes = check(H5Sget_simple_extent_ndims(space), "H5Sget_simple_extent_ndims", "memory");
  std::vector<hsize_t> dims(static_cast<std::size_t>(axes));
  check(H5Sget_simple_extent_dims(space, dims.data(), nullptr), "H5Sget_simple_extent_dims", "memory");
  if (std::any_of(dims.begin(), dims.end(), [](hsize_t size) { return size > hsize_t{1} << 62; }))
    throw DataError(fmt::format("a dataset has shape [{}] (no file holds that: it is damaged), make it again", fmt::join(dims, ",")));
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

namespace {

std::string file_of(hid_t object) {
  std::array<char, 4096> name{};
  return H5Fget_name(object, name.data(), name.size() - 1) > 0 ? name.data() : "a file";
}

}  // namespace

std::optional<std::string> read_text_attribute(hid_t object, char const* name) {
  auto const held = lock();
  auto const attribute = find_attribute(object, name);
  if (!attribute.open()) return std::nullopt;
  Handle const type(check(H5Aget_type(attribute.get()), "H5Aget_type", name), &H5Tclose);
  if (H5Tget_class(type.get()) != H5T_STRING)
    throw DataError(fmt::format("{}: attribute {} is not text, make the shard again", file_of(object), name));
  if (values_of(attribute.get(), name) != 1 || H5Tget_size(type.get()) > kMostAttributeBytes)
    throw DataError(fmt::format("attribute {} is not one text of at most {} bytes, make the shard again", name, kMostAttributeBytes));
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
  if (values_of(attribute.get(), name) != 1)
    throw DataError(fmt::format("attribute {} is not one number, make the shard again", name));
  check(H5Aread(attribute.get(), H5T_NATIVE_INT64, &number), "H5Aread", name);
  return number;
}

std::vector<float> read_float_attribute(hid_t object, char const* name) {
  auto const held = lock();
  auto const attribute = find_attribute(object, name);
  if (!attribute.open()) return {};
  std::vector<float> numbers(values_of(attribute.get(), name));
  check(H5Aread(attribute.get(), H5T_NATIVE_FLOAT, numbers.data()), "H5Aread", name);
  return numbers;
}

}  // namespace duoflow::data::h5
