#pragma once
// Runtime: the job from start to end of the process, signals as flags, one clear message when a rank fails.
//
// Under mpirun (or srun --mpi) rank and size come from MPI, under torchrun, or srun without MPI, from the environment
// (launch_variables.h); without a launcher the world is one rank. Construct once, in main, before any tensor is made.
// Not copyable.

#include <cstdint>
#include <functional>
#include <string>

#include "dist/communicator.h"

namespace duoflow::dist {

enum class Device { cpu, cuda };

struct RuntimeOptions {
  int threads =
      0;  // compute threads per rank; 0: OMP_NUM_THREADS, else cores of this host / ranks on this host, at least 1
  double timeout_s = 600;  // deadline of one collective, and of the ranks' start
};

class Runtime {
 public:
  explicit Runtime(RuntimeOptions const& options = {});
  ~Runtime();  // finishes communication; only logs on trouble
  Runtime(Runtime const&) = delete;
  Runtime& operator=(Runtime const&) = delete;

  int rank() const;
  int size() const;
  int local_rank() const;
  std::string const& host() const;
  void set_threads(int threads);
  // Deadlines of one collective and of one step; 0: a step has ten times as long. What passes one ends all ranks with a
  // report (watchdog.h), exit code 4.
  void set_timeout(double seconds, double step_seconds = 0);
  // A step begins: its deadline starts, the last one's ends. Before the first call there is none.
  void at_step(std::int64_t step);

  // The group of all ranks for tensors of this device: MPI for CPU tensors, TCP where no MPI joins the ranks
  // (tcp_backend.h: small messages); for CUDA tensors NCCL, or the former staged through host memory when
  // DUOFLOW_CUDA_TRANSPORT=staged (several ranks on one GPU). Null when the world is one rank, except that NCCL at size
  // one is a real NCCL group.
  // Collective: all ranks must call, in the same order.
  Communicator communicator(Device device);

  // From here on SIGUSR2 and SIGTERM only raise stop_requested(). For who looks at it: elsewhere they end the process
  // as ever, after one message for the job's ranks on this host.
  void catch_stop_signals();
  // SIGUSR2 or SIGTERM arrived on this rank since. Ranks agree on it through the statistics vector, never from this
  // alone.
  bool stop_requested() const;

 private:
  friend int run_guarded(Runtime& runtime, std::function<int()> const& body,
                         std::function<int(std::exception const&)> const& exit_code);
  int fail_job(std::string const& message, bool is_echo, int exit_code);

  struct State;
  State* state_;
};

// Runs body(); on an exception prints one message for the job (rank, host, what happened) and ends all ranks with
// exit_code(exception). In a world of one it returns that code instead. Errors of Runtime's own constructor come before
// it: main catches them itself. Several ranks failing for the same reason still print once. Returns body's value
// otherwise.
int run_guarded(Runtime& runtime, std::function<int()> const& body,
                std::function<int(std::exception const&)> const& exit_code);

}  // namespace duoflow::dist
