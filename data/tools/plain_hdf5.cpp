#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "data/error.h"
#include "data/file.h"
#include "data/tools/plain_array.h"
#include "data/shards/shard_layout.h"

namespace duoflow::data {
namespace {

PlainType plain_type(hid_t dataset, hid_t type) {
  if (auto const stored = h5::recognise(type)) {
    switch (stored->dtype) {
      case DType::u8:
        return PlainType::u8;
      case DType::i64:
        return PlainType::i64;
      case DType::f16:
        return PlainType::f16;
      case DType::bf16:
        return PlainType::bf16;
      case DType::f32:
        return PlainType::f32;
      default:
        return PlainType::other;
    }
  }
  if (H5Tequal(type, H5T_IEEE_F64LE) > 0) return PlainType::f64;
  bool const marked =  // its bits, in whatever order and called signed or not
      H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == 2 && h5::read_text_attribute(dataset, "dtype").value_or("") == "bfloat16";
  return marked ? PlainType::bf16 : PlainType::other;
}

struct Found {
  std::shared_ptr<LibraryRows> rows;
  std::string path;
  std::uint64_t file_bytes;
  PlainArrays arrays;
};

void add_dataset(Found& found, hid_t parent, std::string const& name) {
  auto const where = found.path + ": /" + name;
  auto const dataset = h5::open_dataset(parent, name, found.path);
  h5::Handle const type(h5::check(H5Dget_type(dataset.get()), "H5Dget_type", where), &H5Tclose);
  h5::Handle const space(h5::check(H5Dget_space(dataset.get()), "H5Dget_space", where), &H5Sclose);
  if (H5Sget_simple_extent_type(space.get()) != H5S_SIMPLE) return;  // single numbers and empty ones
  PlainArray array{where, plain_type(dataset.get(), type.get()), h5::shape_of(space.get()), {}};
  auto const bytes = byte_size(array.type);
  h5::require_plausible(array.shape, std::max<std::size_t>(1, bytes), found.file_bytes, where);
  array.read = [rows = found.rows, name, shape = array.shape, bytes](std::int64_t first, std::int64_t count,
                                                                     void* destination) {
    rows->read_numbers(name, shape, bytes, first, count, destination);
  };
  found.arrays.emplace(name, std::move(array));
}

}  // namespace

PlainArrays open_plain_hdf5(std::string const& path) {
  auto const held = h5::lock();
  auto const file = h5::open_file(path);
  h5::Handle const root(h5::check(H5Gopen2(file.get(), "/", H5P_DEFAULT), "H5Gopen2", path), &H5Gclose);
  if (h5::read_integer_attribute(root.get(), "schema_version"))
    throw DataError(fmt::format(
        "{} is a shard already (it has a schema_version), give its folder to `duoflow index` or `duoflow repack`",
        path));
  Found found{std::make_shared<LibraryRows>(path), path, FileDescriptor(path).size(), {}};
  std::vector<std::string> names;
  auto const visit = [](hid_t, char const* name, H5O_info_t const* info, void* out) -> herr_t {
    if (info->type == H5O_TYPE_DATASET) static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  h5::check(H5Ovisit2(file.get(), H5_INDEX_NAME, H5_ITER_INC, visit, &names, H5O_INFO_BASIC), "H5Ovisit2", path);
  for (auto const& name : names) add_dataset(found, file.get(), name);
  return found.arrays;
}

}  // namespace duoflow::data
