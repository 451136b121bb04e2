#include "data/shards/shard_layout.h"

#include <fmt/format.h>

#include <cstddef>
#include <optional>
#include <system_error>
#include <vector>

#include "data/error.h"
#include "data/file.h"

namespace duoflow::data {
namespace {

std::vector<std::string> dataset_names(h5::Handle const& file, std::string const& path) {
  std::vector<std::string> names;
  auto const visit = [](hid_t, char const* name, H5O_info_t const* info, void* out) -> herr_t {
    if (info->type == H5O_TYPE_DATASET) static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  h5::check(H5Ovisit2(file.get(), H5_INDEX_NAME, H5_ITER_INC, visit, &names, H5O_INFO_BASIC), "H5Ovisit2", path);
  return names;
}

// Files of other tools may hold bf16 as 16-bit integers marked by an attribute.
bool marked_bfloat16(hid_t dataset, hid_t type) {
  if (H5Tequal(type, H5T_STD_U16LE) <= 0) return false;
  return h5::read_text_attribute(dataset, "dtype").value_or("") == "bfloat16";
}

bool in_host_order(std::optional<h5::StoredType> const& stored) { return !stored || stored->host_layout; }

// Why the file's bytes cannot be read as the rows; empty: nothing speaks against it.
std::string obstacle(hid_t dataset, bool host_order, std::string const& where) {
  h5::Handle const how(h5::check(H5Dget_create_plist(dataset), "H5Dget_create_plist", where), &H5Pclose);
  switch (h5::check(H5Pget_layout(how.get()), "H5Pget_layout", where)) {
    case H5D_CONTIGUOUS: break;
    case H5D_CHUNKED: return H5Pget_nfilters(how.get()) > 0 ? "chunks with a filter or compression" : "chunks";
    case H5D_COMPACT: return "stored inside its header";
    case H5D_VIRTUAL: return "a virtual data set";
    default: return "a layout of a newer HDF5";
  }
  if (H5Pget_external_count(how.get()) != 0) return "its bytes are in other files";
  if (!host_order) return "big-endian numbers";
  if (H5Dget_offset(dataset) == HADDR_UNDEF) return "never written, so no bytes of the file are its own";
  return "";
}

// A user block or a future layout may shift offsets: the file's own bytes decide.
bool offset_is_right(FileDescriptor const& bytes, LibraryRows& library, DatasetIndex const& dataset) {
  auto const row_bytes = dataset.spec.row_bytes();
  std::vector<std::byte> direct(row_bytes), through_library(row_bytes);
  for (auto const row : {std::int64_t{0}, dataset.spec.rows() - 1}) {
    auto const offset = dataset.offset + static_cast<std::uint64_t>(row) * row_bytes;
    if (bytes.read_at(offset, direct.data(), row_bytes) != row_bytes) return false;
    library.read(dataset.spec, row, 1, through_library.data());
    if (direct != through_library) return false;
  }
  return true;
}

// The schema's type that a dataset has; nothing where it has none.
std::optional<h5::StoredType> stored_type(hid_t dataset, hid_t type) {
  auto const stored = h5::recognise(type);
  return !stored && marked_bfloat16(dataset, type) ? h5::StoredType{DType::bf16, true} : stored;
}

DatasetIndex describe(h5::Handle const& file, std::string const& path, std::string const& name, FileDescriptor const& bytes,
                      LibraryRows& library) {
  auto const where = path + ":" + name;
  auto const dataset = h5::open_dataset(file.get(), name, path);
  h5::Handle const type(h5::check(H5Dget_type(dataset.get()), "H5Dget_type", where), &H5Tclose);
  h5::Handle const space(h5::check(H5Dget_space(dataset.get()), "H5Dget_space", where), &H5Sclose);
  auto const stored = stored_type(dataset.get(), type.get());
  DatasetIndex result;
  result.spec.name = name;
  result.spec.shape = h5::shape_of(space.get());
  if (!stored)
    throw DataError(fmt::format("{}: dataset {} is none of the schema's types (u8, i64, f16, bf16, f32, names of {} bytes), convert it",
                                path, name, kNameBytes));
  result.spec.dtype = stored->dtype;
  h5::require_plausible(result.spec.shape, byte_size(stored->dtype), bytes.size(), where);
  if (result.spec.shape.empty() || result.spec.row_bytes() == 0)
    throw DataError(fmt::format("{}: dataset {} has shape [{}] (rows of some size needed), give it one", path, name,
                                fmt::join(result.spec.shape, ",")));
  if (result.spec.rows() == 0) return result;
  result.raw = obstacle(dataset.get(), in_host_order(stored), where).empty();
  if (!result.raw) return result;
  result.offset = H5Dget_offset(dataset.get());
  result.raw = offset_is_right(bytes, library, result);
  if (!result.raw) result.offset = 0;
  return result;
}

Attributes read_attributes(hid_t root) {
  return {.producer = h5::read_text_attribute(root, "producer").value_or(""),
          .latent_mean = h5::read_float_attribute(root, "latent_mean"),
          .latent_std = h5::read_float_attribute(root, "latent_std"),
          .note = h5::read_text_attribute(root, "note").value_or("")};
}

}  // namespace

ShardLayout read_layout(std::string const& path) try {
  auto const held = h5::lock();
  FileDescriptor const bytes(path);
  auto const file = h5::open_file(path);
  h5::Handle const root(h5::check(H5Gopen2(file.get(), "/", H5P_DEFAULT), "H5Gopen2", path), &H5Gclose);
  auto const version = h5::read_integer_attribute(root.get(), "schema_version");
  auto const kind = h5::read_text_attribute(root.get(), "kind");
  if (!version || !kind)
    throw DataError(fmt::format("{} is no shard (attributes schema_version and kind are missing), make it with this program", path));
  if (*version < 1 || *version > kSchemaVersion)
    throw DataError(fmt::format("{} has schema version {} (this program reads up to {}), use a newer program or make the shard again",
                                path, *version, kSchemaVersion));
  ShardLayout layout;
  layout.kind = kind_from_string(*kind);
  layout.attributes = read_attributes(root.get());
  LibraryRows library(path);
  for (auto const& name : dataset_names(file, path)) layout.datasets[name] = describe(file, path, name, bytes, library);
  return layout;
} catch (std::system_error const& error) {
  throw DataError(fmt::format("cannot read {} ({}), check the disk", path, error.what()));
}

LibraryRows::LibraryRows(std::string const& path) : path_(path), file_bytes_(FileDescriptor(path).size()), file_(h5::open_file(path)) {}

std::string LibraryRows::obstacle(std::string const& name) {
  auto const held = h5::lock();
  auto const where = path_ + ":" + name;
  auto const& dataset = open(name);
  h5::Handle const stored(h5::check(H5Dget_type(dataset.get()), "H5Dget_type", where), &H5Tclose);
  auto const found = data::obstacle(dataset.get(), in_host_order(h5::recognise(stored.get())), where);
  return found.empty() ? "the manifest says so" : found;
}

h5::Handle const& LibraryRows::open(std::string const& name) {
  auto& dataset = datasets_[name];
  if (!dataset.open()) dataset = h5::open_dataset(file_.get(), name, path_);
  return dataset;
}

void LibraryRows::read(DatasetSpec const& spec, std::int64_t first_row, std::int64_t rows, void* destination) {
  if (rows == 0) return;
  auto const held = h5::lock();
  auto const where = path_ + ":" + spec.name;
  auto const& dataset = open(spec.name);
  h5::Handle const type(h5::check(H5Dget_type(dataset.get()), "H5Dget_type", where), &H5Tclose);
  // The caller's memory is for rows of the type it knows of; the library would write those of the file's.
  auto const stored = stored_type(dataset.get(), type.get());
  if (!stored || stored->dtype != spec.dtype)
    throw DataError(fmt::format("{} is {} (the manifest says {}), write the manifest again", where,
                                stored ? to_string(stored->dtype) : "of no type of the schema", to_string(spec.dtype)));
  read_numbers(spec.name, spec.shape, byte_size(spec.dtype), first_row, rows, destination);
}

void LibraryRows::read_numbers(std::string const& name, std::vector<std::int64_t> const& shape, std::size_t bytes, std::int64_t first_row,
                               std::int64_t rows, void* destination) {
  if (rows == 0) return;
  auto const held = h5::lock();
  auto const where = path_ + ":" + name;
  auto const& dataset = open(name);
  h5::Handle const stored(h5::check(H5Dget_type(dataset.get()), "H5Dget_type", where), &H5Tclose);
  h5::Handle const space(h5::check(H5Dget_space(dataset.get()), "H5Dget_space", where), &H5Sclose);
  if (h5::shape_of(space.get()) != shape)
    throw DataError(fmt::format("{} has shape [{}] (the manifest says [{}]), write the manifest again", where,
                                fmt::join(h5::shape_of(space.get()), ","), fmt::join(shape, ",")));
  h5::require_plausible(shape, bytes, file_bytes_, where);
  if (first_row < 0 || rows < 0 || rows > shape.at(0) - first_row || H5Tget_size(stored.get()) != bytes)
    throw DataError(fmt::format("{}: rows {} to {} of {} bytes a number asked for ({} rows of {} there), make the manifest again", where,
                                first_row, first_row + rows, bytes, shape.at(0), H5Tget_size(stored.get())));
  h5::select_rows(space.get(), shape, first_row, rows);
  auto memory_shape = shape;
  memory_shape[0] = rows;
  auto const memory = h5::space_of(memory_shape);
  // The memory type is the stored one but for byte order: numbers are swapped at most, never converted.
  auto const recognised = h5::recognise(stored.get());
  h5::Handle own;
  if (recognised) own = h5::type_of(recognised->dtype);
  bool const integers = !recognised && H5Tget_class(stored.get()) == H5T_INTEGER;  // bf16 in disguise: their bits
  if (integers) {
    own = h5::Handle(h5::check(H5Tcopy(stored.get()), "H5Tcopy", where), &H5Tclose);
    h5::check(H5Tset_order(own.get(), H5T_ORDER_LE), "H5Tset_order", where);
  }
  auto const type = integers || (recognised && !recognised->host_layout) ? own.get() : stored.get();
  h5::check(H5Dread(dataset.get(), type, memory.get(), space.get(), H5P_DEFAULT, destination), "H5Dread", where);
}

}  // namespace duoflow::data
