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
void write_message(char (&message)[size], char const* signal, int rank, std::string const& host) {
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
  std::shared_ptr<Transport> mpi, nccl;  // made when first asked for

  Communicator over_mpi() {
    if (world.size == 1) {
      return Communicator();
    }
    if (!mpi) {
      mpi = make_mpi_transport(timeout_s);
    }
    return Communicator(mpi);
  }
  Communicator over_nccl() {
    if (!nccl) {
      nccl = make_nccl_transport(session ? &*session : nullptr, timeout_s);
    }
    return Communicator(nccl);
  }
  // NCCL first, then a barrier so that rank 0's store outlives everyone's use of it, then MPI.
  void close() {
    if (nccl) {
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
  }
};

Runtime::Runtime(RuntimeOptions const& options) : state_(nullptr) {
  if (options.timeout_s <= 0) {
    throw std::invalid_argument(fmt::format("the deadline of a collective is {} s, it must be positive", options.timeout_s));
  }
  auto state = std::make_unique<State>();
  if (under_launcher()) {
    state->session.emplace();
    state->world = state->session->world();
  }
  char name[256] = {};
  state->host = gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown-host";
  state->timeout_s = options.timeout_s;
  write_message(term_message, "SIGTERM", state->world.rank, state->host);
  write_message(usr2_message, "SIGUSR2", state->world.rank, state->host);
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
  delete state_;
}

int Runtime::rank() const { return state_->world.rank; }
int Runtime::size() const { return state_->world.size; }
int Runtime::local_rank() const { return state_->world.local_rank; }
std::string const& Runtime::host() const { return state_->host; }
void Runtime::set_timeout(double seconds) {
  if (seconds <= 0) {
    throw std::invalid_argument(fmt::format("the deadline of a collective is {} s, it must be positive", seconds));
  }
  state_->timeout_s = seconds;
}

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

namespace {

// When all ranks fail for the same reason, one rank of each host may speak; between hosts the lower rank comes first and
// ends the job (that took 0.3 s) before the others. A PeerError is mostly the echo of another rank's error: it waits longer.
std::chrono::duration<double> time_before_speaking(int rank, bool is_echo) {
  double const by_rank = rank == 0 ? 0.0 : 0.7 + 0.4 * std::min(rank, 11);
  return std::chrono::duration<double>(by_rank + (is_echo ? 1.0 : 0.0));
}

constexpr std::chrono::seconds time_to_be_ended{20};  // by the rank that speaks; then the silent ones end the job too

int fail_job(Runtime const& runtime, std::string const& message, bool is_echo, int exit_code) {
  bool const alone = runtime.size() == 1;
  if (!alone) {
    std::this_thread::sleep_for(time_before_speaking(runtime.rank(), is_echo));
  }
  if (alone || claim_last_word()) {
    fmt::print(stderr, "duoflow: rank {} on {}: {}\n", runtime.rank(), runtime.host(), message);
    std::fflush(nullptr);
  } else {
    std::this_thread::sleep_for(time_to_be_ended);
  }
  if (!alone) {
    abort_all_ranks(exit_code);
  }
  return exit_code;
}

}  // namespace

int run_guarded(Runtime& runtime, std::function<int()> const& body,
                std::function<int(std::exception const&)> const& exit_code) {
  try {
    return body();
  } catch (PeerError const& error) {
    return fail_job(runtime, error.what(), /*is_echo=*/true, exit_code(error));
  } catch (c10::Error const& error) {  // without LibTorch's backtrace
    return fail_job(runtime, error.what_without_backtrace(), /*is_echo=*/false, exit_code(error));
  } catch (std::exception const& error) {
    return fail_job(runtime, error.what(), /*is_echo=*/false, exit_code(error));
  }
}

}  // namespace duoflow::dist
