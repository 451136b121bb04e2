#include "dist/mpi_session.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include <unistd.h>

#include "dist/mpi_check.h"

namespace duoflow::dist {

namespace {

std::atomic<bool> job_is_broken{false};

// Memory that the ranks of this host share; it outlives the rank that writes it.
struct HostMemory {
  std::atomic<int> last_word_taken{0};
  RecordSlot first_slot;  // and behind it one for every other rank of this host
};
static_assert(std::atomic<int>::is_always_lock_free, "other processes see this memory");

MPI_Win host_window = MPI_WIN_NULL;
HostMemory* host_memory = nullptr;

void share_memory(MPI_Comm host, int local_rank, int local_size) {
  void* mine = nullptr;
  std::size_t const others = static_cast<std::size_t>(local_size - 1) * sizeof(RecordSlot);
  MPI_Aint const bytes = local_rank == 0 ? static_cast<MPI_Aint>(sizeof(HostMemory) + others) : 0;
  DUOFLOW_MPI_CHECK(MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, host, static_cast<void*>(&mine), &host_window));
  MPI_Aint size = 0;
  int unit = 0;
  void* of_first = nullptr;
  DUOFLOW_MPI_CHECK(MPI_Win_shared_query(host_window, 0, &size, &unit, static_cast<void*>(&of_first)));
  if (local_rank == 0) {
    host_memory = new (of_first) HostMemory;
    for (int i = 1; i < local_size; ++i) new (&host_memory->first_slot + i) RecordSlot;
  } else {
    host_memory = static_cast<HostMemory*>(of_first);
  }
  DUOFLOW_MPI_CHECK(MPI_Barrier(host));
}

// MPI's start and end wait for every rank and know no deadline.
class Deadline {
 public:
  Deadline(double seconds, char const* what) : thread_([this, seconds, what] { watch(seconds, what); }) {}
  ~Deadline() {
    {
      std::lock_guard lock(mutex_);
      met_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

 private:
  void watch(double seconds, char const* what) {
    char const* const text = std::getenv("OMPI_COMM_WORLD_RANK");
    int const rank = text != nullptr ? std::atoi(text) : 0;
    // The first process that ends makes the launcher end the others: mostly, one message.
    std::chrono::duration<double> const limit(seconds + 0.15 * std::min(rank, 8));
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, limit, [this] { return met_; })) return;
    write_message(fmt::format("rank {}: MPI has not {} within {:g} s: it waits for a rank that is stopped, gone, or cannot be "
                              "reached; look at the processes and hosts of this job, then start it again", rank, what, seconds));
    std::_Exit(peer_error_code);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool met_ = false;
  std::thread thread_;
};

}  // namespace

bool claim_last_word() { return host_memory == nullptr || host_memory->last_word_taken.exchange(1) == 0; }

void write_message(std::string const& message) {
  std::string const line = fmt::format("duoflow: {}\n", message);
  static_cast<void>(!write(STDERR_FILENO, line.data(), line.size()));
}

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

MpiSession::MpiSession(double timeout_s) : timeout_s_(timeout_s) {
  Deadline const deadline(timeout_s, "started");
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
  world_.first_on_host = world_.rank;
  DUOFLOW_MPI_CHECK(MPI_Bcast(&world_.first_on_host, 1, MPI_INT, 0, host));
  share_memory(host, world_.local_rank, world_.local_size);
  DUOFLOW_MPI_CHECK(MPI_Comm_free(&host));
}

MpiSession::~MpiSession() {
  if (!job_is_broken && std::uncaught_exceptions() == 0) {
    Deadline const deadline(timeout_s_, "ended");
    host_memory = nullptr;
    MPI_Win_free(&host_window);
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

std::vector<std::string> MpiSession::gather_strings(std::string const& mine) const {
  std::vector<std::string> all;
  for (int root = 0; root < world_.size; ++root) {
    int length = static_cast<int>(mine.size());
    DUOFLOW_MPI_CHECK(MPI_Bcast(&length, 1, MPI_INT, root, MPI_COMM_WORLD));
    std::string text = mine;
    text.resize(static_cast<std::size_t>(length));
    DUOFLOW_MPI_CHECK(MPI_Bcast(text.data(), length, MPI_CHAR, root, MPI_COMM_WORLD));
    all.push_back(std::move(text));
  }
  return all;
}

RecordSlot* MpiSession::slot(int local_rank) const { return &host_memory->first_slot + local_rank; }

void MpiSession::barrier() const {
  DUOFLOW_MPI_CHECK(MPI_Barrier(MPI_COMM_WORLD));
}

void abort_all_ranks(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);  // MPI_Abort is allowed to return
}

}  // namespace duoflow::dist
