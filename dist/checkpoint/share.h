#pragma once
// What one rank writes of a checkpoint. Private to this folder.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "dist/checkpoint/checkpoint.h"
#include "dist/checkpoint/layout.h"

namespace duoflow::dist {

struct Share {
  std::vector<FilePlan> files;  // of this rank
  std::string description;      // step, number and digest of all tensors, as JSON: the same on every rank
  std::uint64_t bytes = 0;      // of all ranks' tensors
};

// From names, types and shapes alone. Throws CheckpointError: options or tensors that cannot be written.
Share plan_share(CheckpointState const& state, CheckpointWriterOptions const& options, int rank, int size);

// Writes the share's files into `folder`, which is there, and syncs both. Returns the record of them, a JSON text:
// [{name, bytes, xxh3, part, tensors: [entries]}]. `stopping`, asked before each file, ends it with an error.
std::string write_share(Share const& share, CheckpointState const& state, std::string const& folder,
                        std::function<bool()> const& stopping);

// Host memory for copies of a share, reused from one checkpoint to the next; pinned for CUDA.
class HostCopy {
 public:
  explicit HostCopy(bool pinned) : pinned_(pinned) {}
  // The state with the share's tensors as copies, the others as shapes (meta device). Good until the next call. Returns
  // when the copies are complete.
  CheckpointState copy(CheckpointState const& state, Share const& share);

 private:
  bool pinned_;
  at::Tensor memory_;  // bytes
};

}  // namespace duoflow::dist
