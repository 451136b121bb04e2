// .pt files from their parts {2 bytes of length, data}: the pickle and the records data/0, data/1, ..., packed with the
// right checksums here, so that what lies behind them is reached.

#include <ATen/ATen.h>

#include <stdexcept>

#include "model/reference_checkpoint/reference_checkpoint.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/target.h"
#include "tests/model/reference_checkpoint/bytes_in_memory.h"

namespace duoflow::fuzz {
namespace {

std::string packed(std::string_view parts) {
  std::vector<std::pair<std::string, std::string>> entries;
  while (parts.size() >= 2) {
    auto const part = parts.substr(2, number_at(parts, 0, 2));
    entries.emplace_back(entries.empty() ? "a/data.pkl" : "a/data/" + std::to_string(entries.size() - 1), part);
    parts.remove_prefix(2 + part.size());
  }
  return zip_of_entries(entries);
}

bool read_torch_file(std::string const& input) {
  return read_or_refused<model::FormatError>([&] {
    model::test::BytesInMemory const source(packed(input));
    for (auto const& [name, tensor] : model::read_reference_checkpoint(source).model)
      if (tensor.contiguous().nbytes() > input.size()) throw std::logic_error(name + " has more bytes than the file");
  });
}

std::string part_of(std::string const& data) { return little_endian(data.size(), 2) + data; }

// What write_reference_checkpoint makes of it, taken apart again.
std::string parts_of(model::ReferenceCheckpoint const& checkpoint) {
  std::string file;
  model::write_reference_checkpoint(
      checkpoint, [&](void const* data, std::size_t bytes) { file.append(static_cast<char const*>(data), bytes); });
  model::test::BytesInMemory const source(file);
  model::ZipArchive const archive(source);
  std::string parts;
  auto const add = [&](std::string const& end) {
    for (auto const& entry : archive.entries())
      if (entry.name.ends_with(end)) {
        std::string data(entry.bytes, '\0');
        archive.read(entry, data.data());
        parts += part_of(data);
        return true;
      }
    return false;
  };
  add("data.pkl");
  for (int i = 0; add("/data/" + std::to_string(i)); ++i) {
  }
  return parts;
}

std::vector<std::string> torch_file_seeds() {
  using namespace std::string_literals;
  model::ReferenceCheckpoint weights, whole;
  weights.model = {
      {"a", at::ones({2, 3})}, {"module.b", at::ones({3}, at::kBFloat16)}, {"c", at::full({}, 7, at::kLong)}};
  whole = weights;
  model::ReferenceOptimizer optimizer;
  optimizer.groups = {{0.01, 0.1, 0.9, 0.95, 1e-8, 0.05, false, false, {0}},
                      {0.01, 0.1, 0.9, 0.95, 1e-8, 0, false, false, {1}}};
  optimizer.state[0] = {3, at::ones({2, 3}), at::ones({2, 3})};
  whole.optimizer = optimizer;
  whole.updates = 3;
  auto const tensor = [](std::string const& sizes, std::string const& strides) {
    return part_of(
               "}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0"s
               "0X\x03\0\0\0cpuK\x01tQK\0"s +
               sizes + strides + "\x89NtRs."s) +
           part_of("\0\0\x80\x3f"s);
  };
  std::string const large = "\x8a\x08\0\0\0\0\0\0\0\x40"s;  // 2^62
  return {parts_of(whole), parts_of(weights), tensor("K\x01\x85"s, "K\x01\x85"s), tensor(large + "\x85"s, "K\0\x85"s),
          tensor(large + "K\x08K\0\x87"s, "K\x01K\x01K\x01\x87"s)};
}

}  // namespace
}  // namespace duoflow::fuzz

DUOFLOW_FUZZ_TARGET(torch_file, duoflow::fuzz::read_torch_file, duoflow::fuzz::torch_file_seeds);
