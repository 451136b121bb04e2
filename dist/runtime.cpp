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
#include "dist/host_group.h"
#include "dist/nccl_backend.h"
#include "dist/session.h"
#include "dist/watchdog.h"

namespace duoflow::dist {
namespace {

std::atomic<bool> stop_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

void request_stop(int) { stop_flag = true; }

// Whom end_by_signal asks for the last word; null: nobody else is there.
std::atomic<HostGroup*> host_of_signals{nullptr};
static_assert(std::atomic<HostGroup*>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

// What end_by_signal says, written beforehand: a signal handler may not format. Ends with a 0 byte.
char term_message[512], usr2_message[512];

// Installed with SA_RESETHAND: the signal raised here ends the process as it would have done without a handler.
void end_by_signal(int signal) {
  char const* const message = signal == SIGTERM ? term_message : usr2_message;
  HostGroup* const host = host_of_signals;
  if (host == nullptr || host->claim_last_word()) {
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

// A launcher may have bound this rank to some of the host's cores; then there are no others to use.
int default_threads(int ranks_on_host) {
  if (char const* const wish = std::getenv("OMP_NUM_THREADS"); wish != nullptr && std::atoi(wish) > 0)
    return std::atoi(wish);
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

// The watchdog's report is the better one: what knows a deadline of its own has so much more time.
constexpr double watchdog_comes_first_s = 10;

}  // namespace

struct Runtime::State {
  std::unique_ptr<Session> session;  // null: one rank
  World world;
  std::string host;
  double timeout_s = 0;
  std::unique_ptr<HostGroup> host_group;
  std::optional<DatagramSocket> socket;      // none: all ranks are on this host
  std::shared_ptr<Watchdog> watchdog;        // lives as long as the session, unless start-up fails
  std::shared_ptr<Transport> on_host, nccl;  // made when first asked for

  void start_watchdog();
  void set_timeout(double seconds) {
    timeout_s = seconds;
    if (session) session->set_timeout(seconds + watchdog_comes_first_s);
  }
  ~State() { host_of_signals = nullptr; }
  // The ranks of this host that cannot end by themselves, where no launcher does it.
  void end_stopped_ranks() const;
  [[noreturn]] void end_all_ranks(int exit_code) const;
  // Another rank has said why the job ends.
  [[noreturn]] void leave(int exit_code) const;
  // What the watchdog reports ends all ranks, whatever the other threads of this one do.
  void end_job(std::string const& report) const;

  Communicator over_host_memory() {
    if (world.size == 1) {
      return Communicator();
    }
    if (!on_host) {
      Watchdog::Meeting const meeting(*watchdog, "making the group of all ranks");
      on_host = session->make_host_transport(watchdog);
    }
    return Communicator(on_host);
  }
  Communicator over_nccl() {
    if (!nccl) {
      Watchdog::Meeting const meeting(*watchdog, "connecting NCCL");
      nccl = make_nccl_transport(session.get(), timeout_s, watchdog);
    }
    return Communicator(nccl);
  }
  // NCCL first, then a barrier so that rank 0's store outlives everyone's use of it, then the rest.
  void close() {
    if (nccl) {
      Watchdog::Meeting const meeting(*watchdog, "closing NCCL");
      nccl->close();
      if (session) {
        session->barrier();
      }
      nccl.reset();
    }
    if (on_host) {
      on_host->close();
      on_host.reset();
    }
    if (session) {  // the session's own end comes after the watchdog's: all ranks should be there
      Watchdog::Meeting const meeting(*watchdog, "the end of the job");
      session->barrier();
    }
  }
};

namespace {

constexpr unsigned alarm_s = 3;
// A rank that is silent for so long when the job ends is stopped; its watchdog gives a sign of life every 0.1 s.
constexpr double stopped_s = 1.0;

}  // namespace

// The launcher is asked to end the others; it may be gone or stuck: then the signal ends this process. Without a
// launcher that listens the others see in this rank's record that the job has ended, except those that are stopped.
void Runtime::State::end_all_ranks(int exit_code) const {
  std::signal(SIGALRM, SIG_DFL);
  alarm(alarm_s);
  end_stopped_ranks();
  watchdog->repeat_last_word();
  session->abort(exit_code);
  std::_Exit(exit_code);  // the compiler does not take a virtual function's word that it does not return
}

void Runtime::State::end_stopped_ranks() const {
  if (session && !session->ends_all_ranks()) host_group->kill(watchdog->silent_ranks(stopped_s));
}

void Runtime::State::leave(int exit_code) const {
  end_stopped_ranks();
  std::_Exit(exit_code);
}

void Runtime::State::end_job(std::string const& report) const {
  bool const speaks = watchdog->take_last_word(/*is_echo=*/false) && host_group->claim_last_word();
  if (speaks) {
    write_message(fmt::format("rank {} on {}: {}", world.rank, host, report));
  } else if (watchdog->wait_for_last_word()) {
    leave(peer_error_code);  // a second MPI_Abort would wait for the launcher, which is busy with the first
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
  options.end_job = [this](std::string const& report) { end_job(report); };
  options.hush = [this] { host_group->claim_last_word(); };
  options.leave = [this] { leave(peer_error_code); };
  for (int rank = 0; rank < world.size; ++rank) options.slots.push_back(host_group->slot(rank));
  if (session) {
    if (host_group->size() < world.size) socket.emplace();
    std::random_device random;
    std::string const job = session->broadcast_string(fmt::format("{}{}", random(), random()));
    auto const lines =
        session->gather_strings(fmt::format("{} {} {}", socket ? socket->port() : 0, session->address(), host));
    options.hosts.clear();
    std::vector<RemotePeer> remote;
    for (int rank = 0; rank < world.size; ++rank) {
      std::istringstream text(lines[static_cast<std::size_t>(rank)]);
      int port = 0;
      std::string address, name;
      text >> port >> address >> name;
      if (host_group->slot(rank) == nullptr) remote.push_back({rank, address, port});
      options.hosts.push_back(name);
    }
    if (socket) {
      options.link = std::make_unique<PeerLink>(*socket, world.rank, std::hash<std::string>()(job), std::move(remote));
    }
  }
  watchdog = std::make_shared<Watchdog>(std::move(options));
}

Runtime::Runtime(RuntimeOptions const& options) : state_(nullptr) {
  if (options.timeout_s <= 0) {
    throw std::invalid_argument(
        fmt::format("the deadline of a collective is {} s, it must be positive", options.timeout_s));
  }
  auto state = std::make_unique<State>();
  state->session = join_job(options.timeout_s);
  if (state->session) state->world = state->session->world();
  state->host = host_name();
  state->timeout_s = options.timeout_s;
  state->host_group = std::make_unique<HostGroup>(state->session.get());
  if (state->world.local_rank < 0) state->world.local_rank = state->host_group->place();
  host_of_signals = state->host_group.get();
  state->start_watchdog();
  state->set_timeout(options.timeout_s);
  prepare_message(term_message, "SIGTERM", state->world.rank, state->host);
  prepare_message(usr2_message, "SIGUSR2", state->world.rank, state->host);
  install_stop_signals(end_by_signal, SA_RESETHAND);
  bind_device(state->world.local_rank);
  at::set_num_threads(options.threads > 0 ? options.threads : default_threads(state->host_group->size()));
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
    if (state_->session) state_->session->mark_broken();
    fmt::print(stderr, "duoflow: rank {} on {}: communication did not end cleanly ({})\n", rank(), host(),
               error.what());
  }
  state_->watchdog->stop();  // before the memory goes that it writes
  delete state_;
}

int Runtime::rank() const { return state_->world.rank; }
int Runtime::size() const { return state_->world.size; }
int Runtime::local_rank() const { return state_->world.local_rank; }
std::string const& Runtime::host() const { return state_->host; }
void Runtime::set_timeout(double seconds, double step_seconds) {
  if (seconds <= 0 || step_seconds < 0) {
    throw std::invalid_argument(
        fmt::format("the deadlines of a collective and of a step are {} and {} s, the first must be "
                    "positive, the second not negative",
                    seconds, step_seconds));
  }
  state_->set_timeout(seconds);
  state_->watchdog->set_deadlines(seconds, step_seconds > 0 ? step_seconds : 10 * seconds);
}
void Runtime::at_step(std::int64_t step) { state_->watchdog->at_step(step); }

void Runtime::set_threads(int threads) {
  at::set_num_threads(threads > 0 ? threads : default_threads(state_->host_group->size()));
}
// Interrupted reads and writes go on.
void Runtime::catch_stop_signals() { install_stop_signals(request_stop, SA_RESTART); }
bool Runtime::stop_requested() const { return stop_flag; }

Communicator Runtime::communicator(Device device) {
  if (device == Device::cpu || staged_transport_asked_for()) {
    return state_->over_host_memory();
  }
  return state_->over_nccl();
}

// When all ranks fail for the same reason one may speak (Watchdog::take_last_word). A PeerError is mostly the echo of
// another rank's error and waits for it.
int Runtime::fail_job(std::string const& message, bool is_echo, int exit_code) {
  bool const alone = size() == 1;
  if (alone || (state_->watchdog->take_last_word(is_echo) && state_->host_group->claim_last_word())) {
    write_message(fmt::format("rank {} on {}: {}", rank(), host(), message));
    std::fflush(nullptr);
  } else if (state_->watchdog->wait_for_last_word()) {
    state_->leave(exit_code);
  }
  if (!alone) state_->end_all_ranks(exit_code);
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
