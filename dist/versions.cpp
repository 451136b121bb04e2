#include "dist/versions.h"

#include "dist/mpi_session.h"
#include "dist/nccl_backend.h"

namespace duoflow::dist {

std::vector<std::pair<std::string, std::string>> library_versions() {
  return {{"MPI", mpi_version()}, {"thread level", mpi_thread_level()}, {"NCCL", nccl_version()}};
}

}  // namespace duoflow::dist
