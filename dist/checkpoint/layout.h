#pragma once
// Which rank writes which tensor into which file: a pure function of the tensor sizes, the world size and the options,
// so that all ranks know every file's name before anything is written.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace duoflow::dist {

struct FilePlan {
  std::string name;
  std::string part;                  // "model" or "state"
  int rank = 0;                      // who writes it
  std::vector<std::size_t> tensors;  // indices into the part's list, contiguous
};

// Model: about equal contiguous runs of the list, as many files as ranks, or a multiple of that when files would
// exceed max_file_bytes (a tensor is never cut); at least one. State: one file per rank, perhaps without tensors.
std::vector<FilePlan> plan_files(std::vector<std::uint64_t> const& model_bytes,
                                 std::vector<std::uint64_t> const& state_bytes, int world_size,
                                 std::uint64_t max_file_bytes);

}  // namespace duoflow::dist
