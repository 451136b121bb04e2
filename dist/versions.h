#pragma once
// What this build and process run on, for `duoflow doctor` and for checkpoints.

#include <string>
#include <utility>
#include <vector>

namespace duoflow::dist {

// (what, answer) about the communication libraries: MPI and its thread level as it reports them at run time, NCCL as
// built against.
std::vector<std::pair<std::string, std::string>> library_versions();

// "AMD EPYC 9654 (AVX512)", on CUDA with the GPU's name before it: what the bits of a sum depend on beside the program.
std::string hardware(bool cuda);

}  // namespace duoflow::dist
