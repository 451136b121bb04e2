#pragma once
// The part of HDF5 1.10 used here: handles that close themselves, calls that throw, the number types of the schema.
// Private to data/. Every function takes the process-wide lock itself where it calls the library; code that calls the C API
// directly holds `lock()`.

#include <hdf5.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "data/shards/shard_schema.h"

namespace duoflow::data::h5 {

// The library keeps one global state; it is entered by one thread at a time, whatever the build's own thread option.
std::unique_lock<std::recursive_mutex> lock();

class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  hid_t get() const { return id_; }
  bool open() const { return id_ >= 0; }
  // Closes now; false if the library failed at it (a full disk shows itself here).
  bool reset();

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

// Throws DataError "<doing> failed in <where> (<the library's reason>), ..." when result < 0; else returns it.
template <class Result>
Result check(Result result, char const* doing, std::string const& where);
[[noreturn]] void fail(char const* doing, std::string const& where);

Handle create_file(std::string const& path);  // truncates
Handle open_file(std::string const& path);    // read-only, without file locks (they fail on many network file systems)
// Not through links into other files; DataError when it has bytes in files outside the folder of `path`.
Handle open_dataset(hid_t file, std::string const& name, std::string const& path);
// DataError unless the numbers of `bytes` bytes each fit 63 bits, a row 2 GiB, and all of them 65536 times the file's bytes (of
// unwritten or compressed chunks a file declares any size).
void require_plausible(std::vector<std::int64_t> const& shape, std::size_t bytes, std::uint64_t file_bytes, std::string const& where);

Handle type_of(DType dtype);  // little-endian
struct StoredType {
  DType dtype = DType::u8;
  bool host_layout = true;  // false: byte order differs, pread would give swapped numbers
};
std::optional<StoredType> recognise(hid_t type);  // nullopt: no type of the schema

Handle space_of(std::vector<std::int64_t> const& shape);
std::vector<std::int64_t> shape_of(hid_t space);  // DataError for a size beyond 63 bits
// Selects rows [first, first+rows) of a dataset's space.
void select_rows(hid_t space, std::vector<std::int64_t> const& shape, std::int64_t first, std::int64_t rows);

void write_attribute(hid_t object, char const* name, std::string const& text);
void write_attribute(hid_t object, char const* name, std::int64_t number);
void write_attribute(hid_t object, char const* name, std::vector<float> const& numbers);
// nullopt: no such attribute. DataError: of another form, or larger than any of ours (1 MiB).
std::optional<std::string> read_text_attribute(hid_t object, char const* name);
std::optional<std::int64_t> read_integer_attribute(hid_t object, char const* name);
std::vector<float> read_float_attribute(hid_t object, char const* name);  // empty: no such attribute

template <class Result>
Result check(Result result, char const* doing, std::string const& where) {
  if (result < 0) fail(doing, where);
  return result;
}

}  // namespace duoflow::data::h5
