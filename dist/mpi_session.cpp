#include "dist/mpi_session.h"

#include <atomic>
#include <cstdlib>
#include <exception>
#include <new>

#include "dist/mpi_check.h"

namespace duoflow::dist {

namespace {

std::atomic<bool> job_is_broken{false};

// A flag in memory that the ranks of this host share; it outlives the rank that sets it.
MPI_Win last_word_window = MPI_WIN_NULL;
std::atomic<int>* last_word_taken = nullptr;
static_assert(std::atomic<int>::is_always_lock_free, "other processes see this memory");

void share_last_word(MPI_Comm host, bool is_first) {
  void* mine = nullptr;
  MPI_Aint const bytes = is_first ? static_cast<MPI_Aint>(sizeof(std::atomic<int>)) : 0;
  DUOFLOW_MPI_CHECK(MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, host, static_cast<void*>(&mine), &last_word_window));
  MPI_Aint size = 0;
  int unit = 0;
  void* of_first = nullptr;
  DUOFLOW_MPI_CHECK(MPI_Win_shared_query(last_word_window, 0, &size, &unit, static_cast<void*>(&of_first)));
  last_word_taken = is_first ? new (of_first) std::atomic<int>(0) : static_cast<std::atomic<int>*>(of_first);
  DUOFLOW_MPI_CHECK(MPI_Barrier(host));
}

}  // namespace

bool claim_last_word() { return last_word_taken == nullptr || last_word_taken->exchange(1) == 0; }

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);  // allowed before MPI_Init
  std::string const version(text, static_cast<std::size_t>(length));
  return version.substr(0, version.find(','));
}

std::string mpi_thread_level() {
  int started = 0, level = MPI_THREAD_SINGLE;
  DUOFLOW_MPI_CHECK(MPI_Initialized(&started));
  if (started == 0) {
    return "none (MPI is started under a launcher only)";
  }
  DUOFLOW_MPI_CHECK(MPI_Query_thread(&level));
  switch (level) {
    case MPI_THREAD_SINGLE: return "MPI_THREAD_SINGLE";
    case MPI_THREAD_FUNNELED: return "MPI_THREAD_FUNNELED";
    case MPI_THREAD_SERIALIZED: return "MPI_THREAD_SERIALIZED";
    case MPI_THREAD_MULTIPLE: return "MPI_THREAD_MULTIPLE";
    default: return std::to_string(level);
  }
}

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
  share_last_word(host, world_.local_rank == 0);
  DUOFLOW_MPI_CHECK(MPI_Comm_free(&host));
}

MpiSession::~MpiSession() {
  if (!job_is_broken && std::uncaught_exceptions() == 0) {
    last_word_taken = nullptr;
    MPI_Win_free(&last_word_window);
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
