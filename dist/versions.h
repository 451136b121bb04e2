#pragma once
// What this build and process run on, for `duoflow doctor`.

#include <string>
#include <utility>
#include <vector>

namespace duoflow::dist {

// (library, version) of the communication libraries: MPI as it reports itself at run time, NCCL as built against.
std::vector<std::pair<std::string, std::string>> library_versions();

}  // namespace duoflow::dist
