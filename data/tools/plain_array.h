#pragma once
// Arrays in files that are no shards (.npy, HDF5, the raw bytes of a safetensors file), as the import of plain pairs
// reads them. No size, offset or shape in such a file is believed before it has been compared with the file.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace duoflow::data {

enum class PlainType { u8, i64, f16, bf16, f32, f64, other };  // other: kept for the message, cannot be read
std::string to_string(PlainType type);
std::size_t byte_size(PlainType type);  // 0 of other

struct PlainArray {
  std::string where;  // how messages name it: "pairs.h5: /x0", "sample/x0.npy"
  PlainType type = PlainType::other;
  std::vector<std::int64_t> shape;
  // Rows [first, first + rows) of the first axis, little-endian, as stored. Throws DataError. Keeps its file open.
  std::function<void(std::int64_t first, std::int64_t rows, void* destination)> read;

  std::int64_t rows() const { return shape.empty() ? 0 : shape[0]; }
  std::int64_t row_numbers() const;  // in one row
  std::size_t row_bytes() const;
  // One row as floats: exact, but f64 to nearest. DataError for i64 and other.
  std::vector<float> floats(std::int64_t row) const;
};
using PlainArrays = std::map<std::string, PlainArray>;  // by name, without a leading '/'

// Bytes of a file that hold an array without gaps from `offset` on. DataError when they do not lie within the file, a
// size is negative or their product leaves 63 bits.
PlainArray array_in_file(std::string const& path, std::string const& where, PlainType type,
                         std::vector<std::int64_t> const& shape, std::uint64_t offset);
// numpy's format, versions 1 to 3. Refused by name: object arrays (a pickle, which is never run), Fortran order,
// big-endian numbers, other types than those above (bf16 has none in this format), a file that is longer or shorter
// than its header says.
PlainArray open_npy(std::string const& path);
// All datasets. 16-bit integers with the attribute dtype="bfloat16" are bf16; big-endian ones are swapped as they are
// read. DataError: no HDF5 file, or one of duoflow's own shards.
PlainArrays open_plain_hdf5(std::string const& path);

}  // namespace duoflow::data
