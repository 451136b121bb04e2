#include "dist/runtime.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <ATen/Parallel.h>
#include <c10/core/Device.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include "dist/error.h"
#include "dist/mpi_session.h"
#include "dist/nccl_backend.h"
#include "dist/watchdog.h"

namespace duoflow::dist {
namespace {

std::atomic<bool> stop_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void request_stop(int) { stop_flag = true; }

// What end_by_signal says, written beforehand: a signal handler may not format. Ends with a 0 byte.
char term_message[512], usr2_message[512];

// Installed with SA_RESETHAND: the signal raised here ends the process as it would have done without a handler.
void end_by_signal(int signal) {
  char const* const message = signal == SIGTERM ? term_message : usr2_message;
  if (claim_last_word()) {
    static_cast<void>(!write(STDERR_FILENO, message, std::strlen(message)));
  }
  raise(signal);
}

void install_stop_signals(void (*handler)(int), int flags) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGUSR2, SIGTERM}) {
    if (sigaction(signal, &action, nullptr) != 0) {
      throw std::runtime_error(fmt::format("no handler could be installed for signal {}", signal));
    }
  }
}

template <std::size_t size>
void prepare_message(char (&message)[size], char const* signal, int rank, std::string const& host) {
  *fmt::format_to_n(message, size - 1,
                    "duoflow: rank {} on {}: ended by {} before the command was done (somebody asked, or another rank "
                    "failed); look for an earlier message, or start it again\n",
                    rank, host, signal)
       .out = 0;
}

// Open MPI's mpirun, PMIx (srun --mpi=pmix), PMI-1 and 2 (srun --mpi=pmi2, MPICH's mpiexec).
bool under_launcher() {
  constexpr char const* names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
  return std::any_of(std::begin(names), std::end(names), [](char const* name) { return std::getenv(name) != nullptr; });
}

// Launchers that start several processes without an MPI that joins them: each would believe to be alone, and all would
// write the same files.
void refuse_other_launchers() {
  struct Launcher {
    char const *name, *size;
  };
  for (auto const& [name, size] : {Launcher{"torchrun", "WORLD_SIZE"}, Launcher{"srun without --mpi", "SLURM_STEP_NUM_TASKS"}}) {
    char const* const value = std::getenv(size);
    if (value != nullptr && std::atoi(value) > 1) {
      throw std::invalid_argument(fmt::format(
          "{} = {} says that {} started {} ranks, but no MPI joins them (each would train alone into the same folder); "
          "start them with mpirun or srun --mpi=pmix, or unset {} for one rank",
          size, value, name, value, size));
    }
  }
}

// A launcher may have bound this rank to some of the host's cores; then there are no others to use.
int default_threads(int ranks_on_host) {
  if (char const* const wish = std::getenv("OMP_NUM_THREADS"); wish != nullptr && std::atoi(wish) > 0) return std::atoi(wish);
  int const cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  int share = std::max(1, cores / ranks_on_host);
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) {
    share = std::min(share, CPU_COUNT(&allowed));
  }
  return std::max(1, share);
}

bool staged_transport_asked_for() {
  char const* const value = std::getenv("DUOFLOW_CUDA_TRANSPORT");
  std::string const transport = value != nullptr ? value : "nccl";
  if (transport != "nccl" && transport != "staged") {
    throw std::invalid_argument(
        fmt::format("DUOFLOW_CUDA_TRANSPORT is \"{}\" (known: nccl, staged), correct or unset it", transport));
  }
  return transport == "staged";
}

}  // namespace

struct Runtime::State {
  std::optional<MpiSession> session;  // none: one rank
  MpiWorld world;
  std::string host;
  double timeout_s = 0;
  RecordSlot own_slot;                    // without MPI
  std::optional<DatagramSocket> socket;   // none: all ranks are on this host
  std::shared_ptr<Watchdog> watchdog;     // lives as long as the session, unless start-up fails
  std::shared_ptr<Transport> mpi, nccl;   // made when first asked for

  void start_watchdog();
  // What the watchdog reports ends all ranks, whatever the other threads of this one do.
  void end_job(std::string const& report) const;

  Communicator over_mpi() {
    if (world.size == 1) {
      return Communicator();
    }
    if (!mpi) {
      Watchdog::Meeting const meeting(*watchdog, "making the group of all ranks");
      mpi = make_mpi_transport(watchdog);
    }
    return Communicator(mpi);
  }
  Communicator over_nccl() {
    if (!nccl) {
      Watchdog::Meeting const meeting(*watchdog, "connecting NCCL");
      nccl = make_nccl_transport(session ? &*session : nullptr, timeout_s, watchdog);
    }
    return Communicator(nccl);
  }
  // NCCL first, then a barrier so that rank 0's store outlives everyone's use of it, then MPI.
  void close() {
    if (nccl) {
      Watchdog::Meeting const meeting(*watchdog, "closing NCCL");
      nccl->close();
      if (session) {
        session->barrier();
      }
      nccl.reset();
    }
    if (mpi) {
      mpi->close();
      mpi.reset();
    }
    if (session) {  // MPI's own end comes after the watchdog's: all ranks should be there
      Watchdog::Meeting const meeting(*watchdog, "the end of the job");
      session->barrier();
    }
  }
};

namespace {

constexpr unsigned alarm_s = 3;

// MPI_Abort asks the launcher, which may be gone or stuck: then the signal ends this process.
[[noreturn]] void end_all_ranks(int exit_code) {
  std::signal(SIGALRM, SIG_DFL);
  alarm(alarm_s);
  abort_all_ranks(exit_code);
}

}  // namespace

void Runtime::State::end_job(std::string const& report) const {
  bool const speaks = watchdog->take_last_word(/*is_echo=*/false) && claim_last_word();
  if (speaks) {
    write_message(fmt::format("rank {} on {}: {}", world.rank, host, report));
  } else if (watchdog->wait_for_last_word()) {
    std::_Exit(peer_error_code);  // a second MPI_Abort would wait for the launcher, which is busy with the first
  }
  if (!session) std::_Exit(peer_error_code);
  end_all_ranks(peer_error_code);
}

// Who is where: every rank's host, port, and place in the memory of its host.
void Runtime::State::start_watchdog() {
  WatchdogOptions options;
  options.rank = world.rank;
  options.collective_s = timeout_s;
  options.step_s = 10 * timeout_s;
  options.hosts = {host};
  options.slots = {&own_slot};
  options.end_job = [this](std::string const& report) { end_job(report); };
  options.hush = [] { claim_last_word(); };
  options.leave = [] { std::_Exit(peer_error_code); };
  if (session) {
    if (world.local_size < world.size) socket.emplace();
    std::string const job = session->broadcast_string(std::to_string(std::random_device()()) + std::to_string(std::random_device()()));
    auto const lines = session->gather_strings(
        fmt::format("{} {} {} {}", world.first_on_host, world.local_rank, socket ? socket->port() : 0, host));
    options.hosts.clear();
    options.slots.clear();
    std::vector<RemotePeer> remote;
    for (std::string const& line : lines) {
      std::istringstream text(line);
      int first_on_host = 0, local_rank = 0, port = 0;
      std::string name;
      text >> first_on_host >> local_rank >> port >> name;
      bool const is_here = first_on_host == world.first_on_host;
      if (!is_here) remote.push_back({static_cast<int>(options.hosts.size()), name, port});
      options.hosts.push_back(name);
      options.slots.push_back(is_here ? session->slot(local_rank) : nullptr);
    }
    if (socket) {
      options.link = std::make_unique<PeerLink>(*socket, world.rank, std::hash<std::string>()(job), std::move(remote));
    }
  }
  watchdog = std::make_shared<Watchdog>(std::move(options));
}

Runtime::Runtime(RuntimeOptions const& options) : state_(nullptr) {
  if (options.timeout_s <= 0) {
    throw std::invalid_argument(fmt::format("the deadline of a collective is {} s, it must be positive", options.timeout_s));
  }
  auto state = std::make_unique<State>();
  if (under_launcher()) {
    state->session.emplace(options.timeout_s);
    state->world = state->session->world();
  } else {
    refuse_other_launchers();
  }
  char name[256] = {};
  state->host = gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown-host";
  state->timeout_s = options.timeout_s;
  state->start_watchdog();
  prepare_message(term_message, "SIGTERM", state->world.rank, state->host);
  prepare_message(usr2_message, "SIGUSR2", state->world.rank, state->host);
  install_stop_signals(end_by_signal, SA_RESETHAND);
  bind_device(state->world.local_rank);
  at::set_num_threads(options.threads > 0 ? options.threads : default_threads(state->world.local_size));
  static bool const interop_threads_set = (at::set_num_interop_threads(1), true);  // LibTorch allows it once
  static_cast<void>(interop_threads_set);
  state_ = state.release();
}

Runtime::~Runtime() {
  try {
    if (std::uncaught_exceptions() == 0) {
      state_->close();
    }
  } catch (std::exception const& error) {
    mark_job_broken();
    fmt::print(stderr, "duoflow: rank {} on {}: communication did not end cleanly ({})\n", rank(), host(), error.what());
  }
  state_->watchdog->stop();  // before MPI, whose memory it writes
  delete state_;
}

int Runtime::rank() const { return state_->world.rank; }
int Runtime::size() const { return state_->world.size; }
int Runtime::local_rank() const { return state_->world.local_rank; }
std::string const& Runtime::host() const { return state_->host; }
void Runtime::set_timeout(double seconds, double step_seconds) {
  if (seconds <= 0 || step_seconds < 0) {
    throw std::invalid_argument(fmt::format("the deadlines of a collective and of a step are {} and {} s, the first must be "
                                            "positive, the second not negative", seconds, step_seconds));
  }
  state_->timeout_s = seconds;
  state_->watchdog->set_deadlines(seconds, step_seconds > 0 ? step_seconds : 10 * seconds);
}
void Runtime::at_step(std::int64_t step) { state_->watchdog->at_step(step); }

void Runtime::set_threads(int threads) {
  at::set_num_threads(threads > 0 ? threads : default_threads(state_->world.local_size));
}
// Interrupted reads and writes go on.
void Runtime::catch_stop_signals() { install_stop_signals(request_stop, SA_RESTART); }
bool Runtime::stop_requested() const { return stop_flag; }

Communicator Runtime::communicator(Device device) {
  if (device == Device::cpu || staged_transport_asked_for()) {
    return state_->over_mpi();
  }
  return state_->over_nccl();
}

// When all ranks fail for the same reason one may speak (Watchdog::take_last_word). A PeerError is mostly the echo of
// another rank's error and waits for it.
int Runtime::fail_job(std::string const& message, bool is_echo, int exit_code) {
  bool const alone = size() == 1;
  if (alone || (state_->watchdog->take_last_word(is_echo) && claim_last_word())) {
    write_message(fmt::format("rank {} on {}: {}", rank(), host(), message));
    std::fflush(nullptr);
  } else if (state_->watchdog->wait_for_last_word()) {
    std::_Exit(exit_code);
  }
  if (!alone) end_all_ranks(exit_code);
  return exit_code;
}

int run_guarded(Runtime& runtime, std::function<int()> const& body,
                std::function<int(std::exception const&)> const& exit_code) {
  try {
    return body();
  } catch (PeerError const& error) {
    return runtime.fail_job(error.what(), /*is_echo=*/true, exit_code(error));
  } catch (c10::Error const& error) {  // without LibTorch's backtrace
    return runtime.fail_job(error.what_without_backtrace(), /*is_echo=*/false, exit_code(error));
  } catch (std::exception const& error) {
    return runtime.fail_job(error.what(), /*is_echo=*/false, exit_code(error));
  }
}

}  // namespace duoflow::dist
