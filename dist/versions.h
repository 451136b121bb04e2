#pragma once
// What this build and process run on, for `duoflow doctor`.

#include <string>
#include <utility>
#include <vector>

namespace duoflow::dist {

// (what, answer) about the communication libraries: MPI and its thread level as it reports them at run time, NCCL as
// built against.
std::vector<std::pair<std::string, std::string>> library_versions();

}  // namespace duoflow::dist
