// How fast is each collective by size, and what CPU time does it take beside the compute threads?
//
//   mpirun -n 2 --oversubscribe --bind-to none build/collectives [--mib 0.001,1,25] [--repeats 30]
//
// For our backend, and for plain blocking MPI_Allreduce as the peer: the time of one call on the slowest rank (p50,
// p99; all ranks enter together), algorithm and bus bandwidth as nccl-tests defines them (doc/PERFORMANCE.md there: bytes / p50, times
// 2(n-1)/n for all_reduce, (n-1)/n for reduce_scatter, all_gather and all_to_all, 1 for broadcast; bytes = the larger of
// a rank's input and output), and the CPU time of the caller's thread and of all other threads (ours: the communication
// thread). First, CPU seconds of rank 0 per second of waiting for a late peer. Prints columns that scripts can split.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <sstream>
#include <thread>

#include <ATen/ATen.h>
#include <mpi.h>
#include <sys/resource.h>

#include "dist/mpi_check.h"
#include "dist/runtime.h"

namespace duoflow::dist {
namespace {

double cpu_seconds(int who) {
  rusage usage = {};
  getrusage(who, &usage);
  auto const seconds = [](timeval const& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Options {
  std::vector<double> mib = {0.001, 0.016, 0.25, 1, 4, 25};
  int repeats = 30;
};

// One way of moving a buffer. `part` of it is what one rank contributes or keeps; the check is on its first element.
struct Case {
  char const* name;
  double bus_factor;
  std::function<void(at::Tensor const& whole, at::Tensor const& part)> run;
  std::function<float(at::Tensor const& whole, at::Tensor const& part)> result;
  float expected;
};

std::vector<Case> cases(Communicator const& group) {
  auto const n = static_cast<double>(group.size());
  float const ranks = static_cast<float>(group.size());
  auto const first_of_whole = [](at::Tensor const& whole, at::Tensor const&) { return whole[0].item<float>(); };
  auto const first_of_part = [](at::Tensor const&, at::Tensor const& part) { return part[0].item<float>(); };
  double const most = (n - 1) / n;
  at::Tensor const other;
  return {
      {"all_reduce", 2 * most, [=](auto const& whole, auto const&) { all_reduce(group, whole).wait(); }, first_of_whole, ranks},
      {"MPI_Allreduce", 2 * most,
       [](at::Tensor const& whole, at::Tensor const&) {
         DUOFLOW_MPI_CHECK(MPI_Allreduce(MPI_IN_PLACE, whole.data_ptr(), static_cast<int>(whole.numel()), MPI_FLOAT, MPI_SUM,
                                         MPI_COMM_WORLD));
       },
       first_of_whole, ranks},
      {"reduce_scatter", most, [=](auto const& whole, auto const& part) { reduce_scatter(group, part, whole).wait(); },
       first_of_part, ranks},
      {"all_gather", most, [=](auto const& whole, auto const& part) { all_gather(group, whole, part).wait(); }, first_of_whole, 1},
      {"all_to_all", most,
       [=](auto const& whole, auto const&) { all_to_all(group, whole, whole.clone()).wait(); }, first_of_whole, 1},
      {"broadcast", 1, [=](auto const& whole, auto const&) { broadcast(group, whole).wait(); }, first_of_whole, 1},
  };
}

void report_waiting(Communicator const& group, Case const& which) {
  at::Tensor const whole = at::ones({1000 * group.size()}), part = at::ones({1000});
  barrier(group);
  if (group.rank() != 0) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  double const cpu = cpu_seconds(RUSAGE_SELF), wall = wall_seconds();
  which.run(whole, part);
  if (group.rank() == 0) {
    std::printf("waiting_for_a_late_peer %-14s %.3f CPU-s per s\n", which.name,
                (cpu_seconds(RUSAGE_SELF) - cpu) / (wall_seconds() - wall));
  }
}

double slowest(Communicator const& group, double mine) {
  double most = 0;
  for (auto const& text : all_gather_strings(group, std::to_string(mine))) most = std::max(most, std::stod(text));
  return most;
}

void report_speed(Communicator const& group, Case const& which, double mib, int repeats) {
  auto const share = std::max<std::int64_t>(1, static_cast<std::int64_t>(mib * 1024 * 1024 / sizeof(float)) / group.size());
  at::Tensor const whole = at::ones({share * group.size()}), part = at::ones({share});
  std::vector<double> times;
  double own_cpu = 0, all_cpu = 0;
  for (int i = -2; i < repeats; ++i) {
    whole.fill_(1);
    part.fill_(1);
    barrier(group);
    double const all_before = cpu_seconds(RUSAGE_SELF), own_before = cpu_seconds(RUSAGE_THREAD), wall = wall_seconds();
    which.run(whole, part);
    if (i >= 0) {
      times.push_back(wall_seconds() - wall);
      own_cpu += cpu_seconds(RUSAGE_THREAD) - own_before;
      all_cpu += cpu_seconds(RUSAGE_SELF) - all_before;
    }
    if (which.result(whole, part) != which.expected) {
      throw std::runtime_error(std::string(which.name) + ": wrong result");
    }
  }
  std::sort(times.begin(), times.end());
  // A root may leave as soon as the kernel has its bytes: what counts is the slowest rank.
  double const p50 = slowest(group, times[times.size() / 2]), p99 = slowest(group, times[times.size() * 99 / 100]);
  if (group.rank() == 0) {
    double const gigabytes = 1e-9 * static_cast<double>(whole.nbytes());
    std::printf("%-14s %10zu %9.3f %9.3f %8.3f %8.3f %9.3f %9.3f\n", which.name, whole.nbytes(), 1e3 * p50,
                1e3 * p99, gigabytes / p50, which.bus_factor * gigabytes / p50, 1e3 * own_cpu / repeats,
                1e3 * (all_cpu - own_cpu) / repeats);
  }
}

int measure(Runtime& runtime, Options const& options) {
  Communicator const group = runtime.communicator(Device::cpu);
  if (group.size() < 2) {
    throw std::runtime_error("one rank has no collectives, start it with mpirun -n 2");
  }
  auto const all = cases(group);
  report_waiting(group, all[0]);
  report_waiting(group, all[1]);
  if (group.rank() == 0) {
    std::printf("%-14s %10s %9s %9s %8s %8s %9s %9s\n", "collective", "bytes", "p50_ms", "p99_ms", "alg_GB/s", "bus_GB/s", "cpu_ms",
                "comm_ms");
  }
  for (Case const& which : all) {
    for (double const mib : options.mib) {
      report_speed(group, which, mib, options.repeats);
    }
  }
  return 0;
}

Options parse(int count, char** words) {
  Options options;
  for (int i = 1; i + 1 < count; i += 2) {
    std::string const name = words[i];
    if (name == "--repeats") {
      options.repeats = std::stoi(words[i + 1]);
    } else if (name == "--mib") {
      options.mib.clear();
      std::istringstream sizes(words[i + 1]);
      for (std::string size; std::getline(sizes, size, ',');) options.mib.push_back(std::stod(size));
    } else {
      throw std::invalid_argument("unknown option " + name + " (known: --mib, --repeats)");
    }
  }
  return options;
}

}  // namespace
}  // namespace duoflow::dist

int main(int count, char** words) {
  using namespace duoflow::dist;
  Runtime runtime({1, 60});
  return run_guarded(runtime, [&] { return measure(runtime, parse(count, words)); }, [](std::exception const&) { return 1; });
}
