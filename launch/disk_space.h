#pragma once
// Whether a run's checkpoints fit on the disk, found out before the first step rather than at the first checkpoint.

#include <cstdint>
#include <string>

namespace duoflow::launch {

// `directory` need not be there yet. Of checkpoints of `bytes` each, keep_last stay and one more is there while it is written. Throws
// dist::CheckpointError when not even one fits into what is free; returns a warning when not all do, else "". Those
// that are there already count as room, since they are pruned.
std::string check_disk_space(std::string const& directory, std::uint64_t bytes, int keep_last);

}  // namespace duoflow::launch
