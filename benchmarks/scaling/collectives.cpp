// What does waiting for a collective cost the compute threads, and what do the sleeps cost in bandwidth?
//
//   mpirun -n 2 build/allreduce_cpu
//
// Prints, for our backend and for a blocking MPI_Allreduce: CPU seconds of rank 0's process per second of waiting for a
// late peer, and p50 and p99 of the time of one all-reduce by size (both ranks present).

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <thread>

#include <ATen/ATen.h>
#include <mpi.h>
#include <sys/resource.h>

#include "dist/runtime.h"

namespace duoflow::dist {
namespace {

double cpu_seconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  auto const seconds = [](timeval const& t) { return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

using Reduce = std::function<void(at::Tensor const&)>;

void report_waiting(char const* name, Communicator const& group, Reduce const& reduce) {
  at::Tensor const tensor = at::ones({1000});
  barrier(group);
  if (group.rank() != 0) {
    std::this_thread::sleep_for(std::chrono::seconds(2));
  }
  double const cpu = cpu_seconds(), wall = wall_seconds();
  reduce(tensor);
  if (group.rank() == 0) {
    std::printf("%-22s waiting: %.3f CPU-s per s\n", name, (cpu_seconds() - cpu) / (wall_seconds() - wall));
  }
}

void report_speed(char const* name, Communicator const& group, Reduce const& reduce, double mib, int repeats) {
  at::Tensor const tensor = at::ones({static_cast<std::int64_t>(mib * 1024 * 1024 / sizeof(float))});
  std::vector<double> times;
  double cpu = 0;
  for (int i = -2; i < repeats; ++i) {
    tensor.fill_(1);
    barrier(group);
    double const cpu_before = cpu_seconds(), wall = wall_seconds();
    reduce(tensor);
    if (i >= 0) {
      times.push_back(wall_seconds() - wall);
      cpu += cpu_seconds() - cpu_before;
    }
    if (tensor[0].item<int>() != group.size()) {
      throw std::runtime_error("wrong sum");
    }
  }
  std::sort(times.begin(), times.end());
  if (group.rank() == 0) {
    std::printf("%-22s %7.3f MiB: p50 %8.3f ms, p99 %8.3f ms, CPU %8.3f ms each\n", name, mib, 1e3 * times[times.size() / 2],
                1e3 * times[times.size() * 99 / 100], 1e3 * cpu / repeats);
  }
}

int measure(Runtime& runtime) {
  Communicator const group = runtime.communicator(Device::cpu);
  if (group.size() < 2) {
    throw std::runtime_error("one rank has nothing to wait for, start it with mpirun -n 2");
  }
  Reduce const ours = [&](at::Tensor const& tensor) { all_reduce(group, tensor).wait(); };
  Reduce const blocking = [](at::Tensor const& tensor) {
    MPI_Allreduce(MPI_IN_PLACE, tensor.data_ptr(), static_cast<int>(tensor.numel()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  };
  report_waiting("non-blocking, sleeping", group, ours);
  report_waiting("blocking MPI", group, blocking);
  for (double mib : {0.001, 1.0, 25.0}) {
    report_speed("non-blocking, sleeping", group, ours, mib, 40);
    report_speed("blocking MPI", group, blocking, mib, 40);
  }
  return 0;
}

}  // namespace
}  // namespace duoflow::dist

int main() {
  using namespace duoflow::dist;
  Runtime runtime({1, 60});
  return run_guarded(runtime, [&] { return measure(runtime); }, [](std::exception const&) { return 1; });
}
