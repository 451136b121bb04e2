#pragma once
// Private to dist/mpi_*.cpp: every MPI call goes through DUOFLOW_MPI_CHECK, which throws with the text of the call.

#include <string>

#include <fmt/format.h>
#include <mpi.h>

#include "dist/error.h"

namespace duoflow::dist {

inline void check_mpi(int status, char const* call) {
  if (status != MPI_SUCCESS) {
    char text[MPI_MAX_ERROR_STRING] = {};
    int length = 0;
    MPI_Error_string(status, text, &length);
    throw PeerError(fmt::format("{} failed ({}), look at the first message of the other ranks", call,
                                std::string(text, static_cast<std::size_t>(length))));
  }
}

}  // namespace duoflow::dist

#define DUOFLOW_MPI_CHECK(call) ::duoflow::dist::check_mpi((call), #call)
