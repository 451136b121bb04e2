#pragma once
// A session over MPI, without MPI's header. Built with or without MPI (no_mpi_backend.cpp), so that nothing else asks
// which it is.

#include <memory>
#include <string>

#include "dist/session.h"

namespace duoflow::dist {

// Starts MPI for the life of the object. Once per process and only under a launcher; std::runtime_error in a build
// without MPI. timeout_s: after it, a start or an end of MPI that still waits for other ranks ends this process.
std::unique_ptr<Session> make_mpi_session(double timeout_s);

std::string mpi_version();  // of the library this process runs with; "none" in a build without MPI

std::string mpi_thread_level();  // that MPI gave this process, by MPI's name; without a launcher "none (...)"

// All ranks of the world over MPI. Collective. Needs a live MPI session, and marks it broken when a collective fails.
std::shared_ptr<Transport> make_mpi_transport(Session& session, std::shared_ptr<Watchdog> watchdog);

}  // namespace duoflow::dist
