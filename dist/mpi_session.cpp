#include "dist/mpi_session.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "dist/mpi_check.h"

namespace duoflow::dist {

namespace {

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
    write_message(
        fmt::format("rank {}: MPI has not {} within {:g} s: it waits for a rank that is stopped, gone, or cannot be "
                    "reached; look at the processes and hosts of this job, then start it again",
                    rank, what, seconds));
    std::_Exit(peer_error_code);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool met_ = false;
  std::thread thread_;
};

class MpiSession : public Session {
 public:
  explicit MpiSession(double timeout_s);
  ~MpiSession() override;
  std::string address() const override { return host_name(); }
  std::string broadcast_string(std::string const& of_rank_0) override;
  std::vector<std::string> gather_strings(std::string const& mine) override;
  void barrier() override { DUOFLOW_MPI_CHECK(MPI_Barrier(MPI_COMM_WORLD)); }
  std::shared_ptr<Transport> make_host_transport(std::shared_ptr<Watchdog> watchdog) override {
    return make_mpi_transport(*this, std::move(watchdog));
  }
  [[noreturn]] void abort(int exit_code) override {
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::_Exit(exit_code);  // MPI_Abort is allowed to return
  }
  bool ends_all_ranks() const override { return true; }
};

}  // namespace

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
    case MPI_THREAD_SINGLE:
      return "MPI_THREAD_SINGLE";
    case MPI_THREAD_FUNNELED:
      return "MPI_THREAD_FUNNELED";
    case MPI_THREAD_SERIALIZED:
      return "MPI_THREAD_SERIALIZED";
    case MPI_THREAD_MULTIPLE:
      return "MPI_THREAD_MULTIPLE";
    default:
      return std::to_string(level);
  }
}

std::unique_ptr<Session> make_mpi_session(double timeout_s) { return std::make_unique<MpiSession>(timeout_s); }

namespace {

MpiSession::MpiSession(double timeout_s) : Session(timeout_s) {
  Deadline const deadline(timeout_s, "started");
  int provided = MPI_THREAD_SINGLE;
  DUOFLOW_MPI_CHECK(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided));
  DUOFLOW_MPI_CHECK(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  if (provided < MPI_THREAD_MULTIPLE) {
    throw PeerError(
        fmt::format("this MPI offers thread level {} of {} (a communication thread runs beside the compute), "
                    "use an MPI built with MPI_THREAD_MULTIPLE",
                    provided, static_cast<int>(MPI_THREAD_MULTIPLE)));
  }
  DUOFLOW_MPI_CHECK(MPI_Comm_rank(MPI_COMM_WORLD, &world_.rank));
  DUOFLOW_MPI_CHECK(MPI_Comm_size(MPI_COMM_WORLD, &world_.size));
}

MpiSession::~MpiSession() {
  if (!is_broken() && std::uncaught_exceptions() == 0) {
    Deadline const deadline(timeout_s_, "ended");
    MPI_Finalize();
  }
}

std::string MpiSession::broadcast_string(std::string const& of_rank_0) {
  int length = static_cast<int>(of_rank_0.size());
  DUOFLOW_MPI_CHECK(MPI_Bcast(&length, 1, MPI_INT, 0, MPI_COMM_WORLD));
  std::string text = of_rank_0;
  text.resize(static_cast<std::size_t>(length));
  DUOFLOW_MPI_CHECK(MPI_Bcast(text.data(), length, MPI_CHAR, 0, MPI_COMM_WORLD));
  return text;
}

std::vector<std::string> MpiSession::gather_strings(std::string const& mine) {
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

}  // namespace

}  // namespace duoflow::dist
