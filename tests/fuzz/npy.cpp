// numpy's files, as they are.

#include "data/error.h"
#include "data/tools/plain_array.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

bool read_npy(std::string const& input) {
  static MemoryFile const file;
  auto const path = file.holding("\x93NUMPY" + input);
  return read_or_refused<data::DataError>([&] {
    auto const array = data::open_npy(path);
    if (array.rows() == 0) return;
    std::vector<std::byte> row(array.row_bytes());
    array.read(array.rows() - 1, 1, row.data());
    array.floats(0);
  });
}

std::string npy_of(std::string const& header, std::string const& numbers, int version) {
  return std::string(1, static_cast<char>(version)) + '\0' + little_endian(header.size(), version == 1 ? 2 : 4) +
         header + numbers;
}

std::vector<std::string> npy_seeds() {
  std::string const numbers(24, '\1');
  return {npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }   \n", numbers, 1),
          npy_of("{\"shape\":(3,),\"descr\":\"<f8\",\"fortran_order\":False}", numbers, 2),
          npy_of("{'descr': '<f2', 'fortran_order': False, 'shape': (0, 4611686018427387904, 8), }", "", 1),
          npy_of("{'descr': '|u1', 'fortran_order': False, 'shape': (), }", "x", 1),
          npy_of("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", "xx", 1),
          npy_of("{'descr': '<f4', 'fortran_order': True, 'shape': (99999999999999999999,), }", "", 3)};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(npy, duoflow::fuzz::read_npy, duoflow::fuzz::npy_seeds);
