#include "dist/versions.h"

#include <fstream>

#include <ATen/Version.h>
#include <fmt/format.h>

#include "dist/mpi_session.h"
#include "dist/nccl_backend.h"

namespace duoflow::dist {

std::vector<std::pair<std::string, std::string>> library_versions() {
  return {{"MPI", mpi_version()}, {"thread level", mpi_thread_level()}, {"NCCL", nccl_version()}};
}

std::string hardware(bool cuda) {
  std::string processor = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.starts_with("model name")) {
      processor = line.substr(line.find(':') + 2);
      break;
    }
  }
  auto const cpu = fmt::format("{} ({})", processor, at::get_cpu_capability());
  return cuda ? fmt::format("{}, {}", cuda_device_name(), cpu) : cpu;
}

}  // namespace duoflow::dist
