// safetensors files: as they are, or (beginning with '{') a JSON header up to the first line feed and the data behind
// it, which get their length field here.

#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>

#include "dist/checkpoint/safetensors_file.h"
#include "dist/error.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/target.h"

namespace duoflow::fuzz {
namespace {

bool read_safetensors_file(std::string const& input) {
  static MemoryFile const file;
  auto const end = std::min(input.find('\n'), input.size());
  bool const parts = input.starts_with('{');
  auto const path = file.holding(
      parts ? little_endian(end, 8) + input.substr(0, end) + input.substr(std::min(end + 1, input.size())) : input);
  return read_or_refused<dist::CheckpointError>([&] {
    auto const contents = dist::scan_safetensors(path, dist::TensorBytes::keep);
    std::uint64_t bytes = 0;
    for (auto const& tensor : contents.tensors) bytes += tensor.nbytes();
    if (bytes > contents.file_bytes) throw std::logic_error("more bytes than the file has");
    dist::scan_safetensors(path, dist::TensorBytes::discard);
  });
}

std::vector<std::string> safetensors_seeds() {
  auto const tensor = [](std::string const& name, std::string const& dtype, std::string const& shape, int begin,
                         int end) {
    return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":[" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
  };
  std::string const numbers(16, '\1');
  auto const whole = "{\"__metadata__\":{\"format\":\"pt\"}," + tensor("a", "F32", "[2,1]", 0, 8) + "," +
                     tensor("b", "BF16", "[4]", 8, 16) + "}";
  return {whole + "\n" + numbers,
          "{" + tensor("a", "BOOL", "[]", 0, 1) + "," + tensor("e", "I64", "[0,4611686018427387904,8]", 1, 1) + "}\n" +
              numbers.substr(0, 1),
          "{" + tensor("a", "U8", "[16]", 0, 16) + "," + tensor("a", "U8", "[16]", 0, 16) + "}\n" + numbers,
          "{" + std::string(50, '[') + std::string(50, ']') + "}\n",
          little_endian(whole.size(), 8) + whole + numbers,
          std::string(8, '\xff')};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(safetensors, duoflow::fuzz::read_safetensors_file, duoflow::fuzz::safetensors_seeds);
