#include "dist/mpi_session.h"

#include <atomic>
#include <cstdlib>
#include <exception>

#include "dist/mpi_check.h"

namespace duoflow::dist {

namespace {

std::atomic<bool> job_is_broken{false};

}  // namespace

void mark_job_broken() { job_is_broken = true; }

MpiSession::MpiSession() {
  int provided = MPI_THREAD_SINGLE;
  DUOFLOW_MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided));
  DUOFLOW_MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  if (provided < MPI_THREAD_MULTIPLE) {
    throw PeerError(fmt::format("this MPI offers thread level {} of {} (a communication thread runs beside the compute), "
                                "use an MPI built with MPI_THREAD_MULTIPLE", provided, static_cast<int>(MPI_THREAD_MULTIPLE)));
  }
  DUOFLOW_MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &world_.rank));
  DUOFLOW_MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &world_.size));
  MPI_Comm host = MPI_COMM_NULL;
  DUOFLOW_MPI_CHECK(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, world_.rank, MPI_INFO_NULL, &host));
  DUOFLOW_MPI_CHECK(MPI_Comm_rank(host, &world_.local_rank));
  DUOFLOW_MPI_CHECK(MPI_Comm_size(host, &world_.local_size));
  DUOFLOW_MPI_CHECK(MPI_Comm_free(&host));
}

MpiSession::~MpiSession() {
  if (!job_is_broken && std::uncaught_exceptions() == 0) {
    MPI_Finalize();
  }
}

std::string MpiSession::broadcast_string(std::string const& of_rank_0) const {
  int length = static_cast<int>(of_rank_0.size());
  DUOFLOW_MPI_CHECK(MPI_Bcast(&length, 1, MPI_INT, 0, MPI_COMM_WORLD));
  std::string text = of_rank_0;
  text.resize(static_cast<std::size_t>(length));
  DUOFLOW_MPI_CHECK(MPI_Bcast(text.data(), length, MPI_CHAR, 0, MPI_COMM_WORLD));
  return text;
}

void MpiSession::barrier() const {
  DUOFLOW_MPI_CHECK(MPI_Barrier(MPI_COMM_WORLD));
}

void abort_all_ranks(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);  // MPI_Abort is allowed to return
}

}  // namespace duoflow::dist
